/// An IPv4 address, as the 32-bit number its dotted quad writes (host order: 10.0.0.1 is `0x0A00_0001`).
public struct IPv4Address: Hashable, Comparable, Sendable, BitwiseCopyable {
    public var rawValue: UInt32

    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    @inlinable
    public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
        rawValue = UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d)
    }

    /// 0.0.0.0, which stands for "no address" in every configuration and lookup.
    public static var any: IPv4Address { IPv4Address(rawValue: 0) }

    @inlinable
    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}

extension IPv4Address: LosslessStringConvertible {
    /// A dotted quad of four decimal numbers 0 to 255 without leading zeros, as `inet_pton(3)` takes it.
    public init?(_ text: some StringProtocol) {
        guard let value = Self.parse(text.utf8) else { return nil }
        self = value
    }

    public init?(_ text: String) {
        guard let value = Self.parse(text.utf8) else { return nil }
        self = value
    }

    static func parse(_ text: some Sequence<UInt8>) -> IPv4Address? {
        var value: UInt32 = 0
        var part: UInt32 = 0
        var digits = 0
        var parts = 0
        for byte in text {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                if digits > 0 && part == 0 { return nil }  // a leading zero: octal to some, decimal to others
                part = part * 10 + UInt32(byte - UInt8(ascii: "0"))
                digits += 1
                if part > 255 { return nil }
            case UInt8(ascii: "."):
                if digits == 0 || parts == 3 { return nil }
                value = value << 8 | part
                (part, digits) = (0, 0)
                parts += 1
            default:
                return nil
            }
        }
        if parts != 3 || digits == 0 { return nil }
        return IPv4Address(rawValue: value << 8 | part)
    }

    public var description: String {
        "\(rawValue >> 24).\(rawValue >> 16 & 255).\(rawValue >> 8 & 255).\(rawValue & 255)"
    }
}

// What an address may be used for (IANA IPv4 special-purpose registry; RFC 6890).
extension IPv4Address {
    /// Could be the address of one host on a link or the Internet: not 0/8, 127/8, 224/4 (multicast) or 240/4 (reserved,
    /// with 255.255.255.255). RFC 3964 section 5.3.1 wants all four refused as tunnel endpoints; private ranges are not
    /// judged here.
    @inlinable
    public var isUnicastHost: Bool {
        let network = rawValue >> 24
        return network != 0 && network != 127 && network < 224
    }

    /// 224.0.0.0/4
    @inlinable public var isMulticast: Bool { rawValue >> 28 == 0xE }

    /// Means something only within a site: 10/8, 172.16/12, 192.168/16 (RFC 1918), 169.254/16 (RFC 3927) or 100.64/10
    /// (RFC 6598).
    @inlinable
    public var isPrivateUse: Bool {
        rawValue >> 24 == 10 || rawValue >> 20 == 0xAC1 || rawValue >> 16 == 0xC0A8 || rawValue >> 16 == 0xA9FE
            || rawValue >> 22 == 0x191
    }
}
