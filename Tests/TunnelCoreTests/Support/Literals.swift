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

// SAFETY: bytes have no padding, so all of their memory holds values.
extension [UInt8] {
    /// The bytes as the views take them.
    var raw: RawSpan {
        @_lifetime(borrow self) get { unsafe span.bytes }
    }

    /// Lends the bytes to what writes packets.
    mutating func withMutableRaw<Result>(_ body: (inout MutableRawSpan) -> Result) -> Result {
        var span = mutableSpan
        var raw = unsafe span.mutableBytes
        return body(&raw)
    }
}

/// What `emit` leaves of `count` bytes that were all `fill` before.
func written(_ count: Int, over fill: UInt8, by emit: (inout MutableRawSpan) -> Void) -> [UInt8] {
    var bytes = [UInt8](repeating: fill, count: count)
    bytes.withMutableRaw(emit)
    return bytes
}
