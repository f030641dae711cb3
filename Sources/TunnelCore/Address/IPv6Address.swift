/// An IPv6 address, as two 64-bit halves in host order: `high` holds the first eight bytes on the wire.
public struct IPv6Address: Hashable, Comparable, Sendable, BitwiseCopyable {
    public var high: UInt64
    public var low: UInt64

    @inlinable
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// `::`, the unspecified address.
    public static var unspecified: IPv6Address { IPv6Address(high: 0, low: 0) }
    /// `::1`
    public static var loopback: IPv6Address { IPv6Address(high: 0, low: 1) }

    @inlinable
    public static func < (left: Self, right: Self) -> Bool {
        left.high != right.high ? left.high < right.high : left.low < right.low
    }

    /// The next address up; nil after the last.
    var successor: IPv6Address? {
        if low != .max { return IPv6Address(high: high, low: low + 1) }
        return high == .max ? nil : IPv6Address(high: high + 1, low: 0)
    }

    /// The eight 16-bit groups of the text form, first group first.
    var groups: [UInt16] {
        (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> UInt64(48 - $0 % 4 * 16)) }
    }
}

extension IPv6Address {
    /// ff00::/8
    @inlinable
    public var isMulticast: Bool { high >> 56 == 0xFF }
    /// fe80::/10
    @inlinable
    public var isLinkLocal: Bool { high >> 54 == 0x3FA }
    /// ::ffff:0:0/96
    @inlinable
    public var isIPv4Mapped: Bool { high == 0 && low >> 32 == 0xFFFF }

    /// The last 32 bits as an IPv4 address.
    @inlinable
    public var trailingHost: IPv4Address { IPv4Address(rawValue: UInt32(truncatingIfNeeded: low)) }

    /// `::a.b.c.d`, deprecated as an address (RFC 4291 section 2.5.5.1), but what sit takes for an IPv4 host.
    public static func compatible(with address: IPv4Address) -> IPv6Address {
        IPv6Address(high: 0, low: UInt64(address.rawValue))
    }

    /// The link-local address that a point-to-point sit device gives itself: `fe80::` and the IPv4 address in the last
    /// 32 bits (net/ipv6/addrconf.c `add_v4_addrs`).
    public static func linkLocal(embedding address: IPv4Address) -> IPv6Address {
        IPv6Address(high: 0xFE80 << 48, low: UInt64(address.rawValue))
    }
}

extension IPv6Address: LosslessStringConvertible {
    /// Any text form of RFC 4291 section 2.2: groups of one to four hexadecimal digits, at most one `::`, and a dotted
    /// quad for the last 32 bits. No zone (`%eth0`), no brackets.
    public init?(_ text: some StringProtocol) {
        guard let value = Self.parse(Array(text.utf8)) else { return nil }
        self = value
    }

    public init?(_ text: String) {
        guard let value = Self.parse(Array(text.utf8)) else { return nil }
        self = value
    }

    private static func parse(_ text: [UInt8]) -> IPv6Address? {
        var before: [UInt16] = []  // groups in front of "::"
        var after: [UInt16]? = nil  // groups behind it, once it was seen
        var index = 0
        let colon = UInt8(ascii: ":")
        func append(_ group: UInt16) {
            if after == nil { before.append(group) } else { after!.append(group) }
        }
        if text.starts(with: [colon, colon]) {
            after = []
            index = 2
        }
        while index < text.count {
            let start = index
            while index < text.count, text[index] != colon { index += 1 }
            let piece = text[start..<index]
            if piece.contains(UInt8(ascii: ".")) {
                // A dotted quad can only be the last piece.
                guard index == text.count, let quad = IPv4Address.parse(piece) else { return nil }
                append(UInt16(quad.rawValue >> 16))
                append(UInt16(quad.rawValue & 0xFFFF))
                break
            }
            guard (1...4).contains(piece.count) else { return nil }
            var group: UInt16 = 0
            for byte in piece {
                guard let digit = hexDigit(byte) else { return nil }
                group = group << 4 | digit
            }
            append(group)
            if index == text.count { break }
            index += 1  // over the colon
            if index == text.count { return nil }  // a single colon at the end
            if text[index] == colon {
                if after != nil { return nil }  // a second "::"
                after = []
                index += 1
            }
        }
        let count = before.count + (after?.count ?? 0)
        if after == nil ? count != 8 : count > 7 { return nil }
        let groups = before + Array(repeating: 0, count: 8 - count) + (after ?? [])
        func half(_ slice: ArraySlice<UInt16>) -> UInt64 { slice.reduce(0) { $0 << 16 | UInt64($1) } }
        return IPv6Address(high: half(groups[0..<4]), low: half(groups[4..<8]))
    }

    private static func hexDigit(_ byte: UInt8) -> UInt16? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt16(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt16(byte - UInt8(ascii: "a") + 10)
        case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt16(byte - UInt8(ascii: "A") + 10)
        default: nil
        }
    }

    /// The canonical form of RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups (the
    /// first of equals) as `::`, and the IPv4-mapped prefix with a dotted quad (section 5).
    public var description: String {
        if isIPv4Mapped { return "::ffff:\(IPv4Address(rawValue: UInt32(truncatingIfNeeded: low)))" }
        let groups = groups
        var longest = 0..<0
        var start = 0
        while start < 8 {
            var end = start
            while end < 8, groups[end] == 0 { end += 1 }
            if end - start > max(longest.count, 1) { longest = start..<end }
            start = end + 1
        }
        func text(_ range: Range<Int>) -> String {
            groups[range].map { String($0, radix: 16) }.joined(separator: ":")
        }
        return longest.isEmpty ? text(0..<8) : "\(text(0..<longest.lowerBound))::\(text(longest.upperBound..<8))"
    }
}
