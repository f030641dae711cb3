import TunnelCore

/// The bytes that hexadecimal digits write; spaces and line breaks between them are for the reader.
func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    precondition(digits.count % 2 == 0, "half a byte in \(text)")
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

func v4(_ text: String) -> IPv4Address { IPv4Address(text)! }
func v6(_ text: String) -> IPv6Address { IPv6Address(text)! }
func prefix4(_ text: String) -> IPv4Prefix { try! IPv4Prefix(parsing: text) }
func prefix6(_ text: String) -> IPv6Prefix { try! IPv6Prefix(parsing: text) }

extension IPv6Address {
    /// As one number, in which prefixes and neighbours are plain arithmetic.
    var number: UInt128 { UInt128(high) << 64 | UInt128(low) }

    init(number: UInt128) {
        self.init(high: UInt64(truncatingIfNeeded: number >> 64), low: UInt64(truncatingIfNeeded: number))
    }
}
