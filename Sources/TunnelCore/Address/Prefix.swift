/// Why a text is no prefix.
public enum PrefixError: Error, Equatable, Sendable {
    /// Not ADDRESS/LENGTH with an address of this family.
    case malformed
    /// The length is more than the family has bits.
    case lengthOutOfRange(maximum: Int)
    /// Bits are set behind the prefix; `masked` is the prefix that was probably meant.
    case hostBitsSet(masked: String)
}

extension PrefixError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .malformed: "not of the form ADDRESS/LENGTH"
        case .lengthOutOfRange(let maximum): "the prefix length must be 0 to \(maximum)"
        case .hostBitsSet(let masked): "bits are set behind the prefix length (did you mean \(masked)?)"
        }
    }
}

/// An IPv4 network: the first `length` bits of `address`, all further bits zero.
public struct IPv4Prefix: Hashable, Sendable, CustomStringConvertible {
    public let address: IPv4Address
    public let length: Int

    /// The prefix of `length` (0 to 32) bits that `address` lies in.
    public init(masking address: IPv4Address, length: Int) {
        precondition((0...32).contains(length))
        self.address = IPv4Address(rawValue: address.rawValue & Self.mask(length))
        self.length = length
    }

    /// `10.0.0.0/8`
    public init(parsing text: String) throws(PrefixError) {
        let (head, length) = try splitPrefix(text, maximum: 32)
        guard let address = IPv4Address(head) else { throw .malformed }
        self.init(masking: address, length: length)
        if self.address != address { throw .hostBitsSet(masked: description) }
    }

    static func mask(_ length: Int) -> UInt32 { ~(UInt32.max >> UInt32(length)) }

    public func contains(_ address: IPv4Address) -> Bool { address.rawValue & Self.mask(length) == self.address.rawValue }

    public var description: String { "\(address)/\(length)" }
}

/// An IPv6 network: the first `length` bits of `address`, all further bits zero.
public struct IPv6Prefix: Hashable, Sendable, CustomStringConvertible {
    public let address: IPv6Address
    public let length: Int

    /// The prefix of `length` (0 to 128) bits that `address` lies in.
    public init(masking address: IPv6Address, length: Int) {
        precondition((0...128).contains(length))
        let mask = Self.mask(length)
        self.address = IPv6Address(high: address.high & mask.high, low: address.low & mask.low)
        self.length = length
    }

    /// `fd00::/32`
    public init(parsing text: String) throws(PrefixError) {
        let (head, length) = try splitPrefix(text, maximum: 128)
        guard let address = IPv6Address(head) else { throw .malformed }
        self.init(masking: address, length: length)
        if self.address != address { throw .hostBitsSet(masked: description) }
    }

    /// ::/96, of the IPv4-compatible addresses.
    public static var compatible: IPv6Prefix { IPv6Prefix(masking: .unspecified, length: 96) }

    static func mask(_ length: Int) -> IPv6Address {
        IPv6Address(
            high: ~(UInt64.max >> UInt64(min(length, 64))),  // a shift by 64 gives 0, so a length of 64 masks nothing away
            low: ~(UInt64.max >> UInt64(max(length - 64, 0))))
    }

    public func contains(_ address: IPv6Address) -> Bool {
        let mask = Self.mask(length)
        return address.high & mask.high == self.address.high && address.low & mask.low == self.address.low
    }

    /// The last address inside.
    public var last: IPv6Address {
        let mask = Self.mask(length)
        return IPv6Address(high: address.high | ~mask.high, low: address.low | ~mask.low)
    }

    public var description: String { "\(address)/\(length)" }
}

private func splitPrefix(_ text: String, maximum: Int) throws(PrefixError) -> (head: Substring, length: Int) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[1].isEmpty, parts[1].utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }) else { throw .malformed }
    guard let length = Int(parts[1]), length <= maximum else { throw .lengthOutOfRange(maximum: maximum) }
    guard parts[1] == String(length) else { throw .malformed }  // a leading zero
    return (parts[0], length)
}
