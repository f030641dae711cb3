import Testing
import TunnelCore

@Suite struct IPv4PrefixTests {
    // Python: ipaddress.IPv4Network(text), its first and last address.
    static let good: [(String, String, String)] = [
        ("10.0.0.0/8", "10.0.0.0", "10.255.255.255"),
        ("192.168.1.128/25", "192.168.1.128", "192.168.1.255"),
        ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.3"),
        ("172.16.0.0/12", "172.16.0.0", "172.31.255.255"),
        ("10.0.0.2/31", "10.0.0.2", "10.0.0.3"),
        ("128.0.0.0/1", "128.0.0.0", "255.255.255.255"),
    ]

    @Test(arguments: good)
    func parsesAndContains(text: String, first: String, last: String) throws {
        let prefix = try IPv4Prefix(parsing: text)
        let (low, high) = (v4(first).rawValue, v4(last).rawValue)
        #expect(prefix.description == text)
        #expect(prefix.address == v4(first))
        #expect(prefix.contains(v4(first)) && prefix.contains(v4(last)))
        #expect(prefix.contains(IPv4Address(rawValue: low + (high - low) / 2)))
        #expect(low == 0 || !prefix.contains(IPv4Address(rawValue: low &- 1)))
        #expect(high == .max || !prefix.contains(IPv4Address(rawValue: high &+ 1)))
    }

    @Test(arguments: [
        ("", PrefixError.malformed), ("10.0.0.0", .malformed), ("/8", .malformed), ("10.0.0.0/", .malformed),
        ("10.0.0.0/8/8", .malformed),
        ("10.0.0.0/a", .malformed), ("10.0.0.0/-1", .malformed), ("10.0.0.0/+8", .malformed), ("10.0.0.0/ 8", .malformed),
        ("10.0.0/8", .malformed), ("2001:db8::/32", .malformed), ("10.0.0.0/255.0.0.0", .malformed), ("10.0.0.0 /8", .malformed),
        ("10.0.0.0/\u{661}", .malformed),
        ("10.0.0.0/33", .lengthOutOfRange(maximum: 32)), ("10.0.0.0/99999999999999999999", .lengthOutOfRange(maximum: 32)),
        ("10.0.0.1/8", .hostBitsSet(masked: "10.0.0.0/8")), ("192.168.1.129/25", .hostBitsSet(masked: "192.168.1.128/25")),
        ("0.0.0.1/0", .hostBitsSet(masked: "0.0.0.0/0")), ("10.0.0.1/31", .hostBitsSet(masked: "10.0.0.0/31")),
    ])
    func refuses(text: String, error: PrefixError) {
        #expect(throws: error) { try IPv4Prefix(parsing: text) }
    }

    @Test(arguments: [
        (0, "0.0.0.0"), (1, "128.0.0.0"), (8, "203.0.0.0"), (25, "203.0.113.128"), (31, "203.0.113.254"), (32, "203.0.113.255"),
    ])
    func masks(length: Int, expected: String) {
        let prefix = IPv4Prefix(masking: v4("203.0.113.255"), length: length)
        #expect(prefix.address == v4(expected))
        #expect(prefix.length == length)
    }
}

@Suite struct IPv6PrefixTests {
    // Python: ipaddress.IPv6Network(("2001:db8:1234:5678:9abc:def0:1234:5678", length), strict=False), first and last.
    static let lengths: [(Int, String, String)] = [
        (0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (1, "::", "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (32, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        (46, "2001:db8:1234::", "2001:db8:1237:ffff:ffff:ffff:ffff:ffff"),
        (63, "2001:db8:1234:5678::", "2001:db8:1234:5679:ffff:ffff:ffff:ffff"),
        (64, "2001:db8:1234:5678::", "2001:db8:1234:5678:ffff:ffff:ffff:ffff"),
        (65, "2001:db8:1234:5678:8000::", "2001:db8:1234:5678:ffff:ffff:ffff:ffff"),
        (96, "2001:db8:1234:5678:9abc:def0::", "2001:db8:1234:5678:9abc:def0:ffff:ffff"),
        (127, "2001:db8:1234:5678:9abc:def0:1234:5678", "2001:db8:1234:5678:9abc:def0:1234:5679"),
        (128, "2001:db8:1234:5678:9abc:def0:1234:5678", "2001:db8:1234:5678:9abc:def0:1234:5678"),
    ]

    @Test(arguments: lengths)
    func masksContainsAndEnds(length: Int, first: String, last: String) throws {
        let inside = v6("2001:db8:1234:5678:9abc:def0:1234:5678")
        let prefix = IPv6Prefix(masking: inside, length: length)
        #expect(prefix.address == v6(first))
        #expect(prefix.last == v6(last))
        #expect(prefix.length == length)
        #expect(prefix.contains(inside) && prefix.contains(v6(first)) && prefix.contains(v6(last)))
        #expect(v6(first).number == 0 || !prefix.contains(IPv6Address(number: v6(first).number - 1)))
        #expect(v6(last).number == .max || !prefix.contains(IPv6Address(number: v6(last).number + 1)))
        #expect(prefix.description == "\(first)/\(length)")
        #expect(try IPv6Prefix(parsing: "\(first)/\(length)") == prefix)
    }

    @Test(arguments: [
        ("", PrefixError.malformed), ("fd00::", .malformed), ("/32", .malformed), ("fd00::/", .malformed),
        ("fd00::/32/", .malformed),
        ("fd00::/x", .malformed), ("fd00::/-1", .malformed), ("fd00::/+1", .malformed), ("10.0.0.0/8", .malformed),
        ("fd00:/32", .malformed),
        ("fd00::%eth0/64", .malformed),
        ("fd00::/129", .lengthOutOfRange(maximum: 128)), ("fd00::/18446744073709551617", .lengthOutOfRange(maximum: 128)),
        ("fd00::1/64", .hostBitsSet(masked: "fd00::/64")), ("2001:db8:1::/32", .hostBitsSet(masked: "2001:db8::/32")),
        ("::1/0", .hostBitsSet(masked: "::/0")), ("8000::/0", .hostBitsSet(masked: "::/0")),
        ("2a01:79d::/30", .hostBitsSet(masked: "2a01:79c::/30")), ("fd00::1/127", .hostBitsSet(masked: "fd00::/127")),
        ("fd00:0:0:1::/63", .hostBitsSet(masked: "fd00::/63")), ("fd00::4000:0:0:0/65", .hostBitsSet(masked: "fd00::/65")),
    ])
    func refuses(text: String, error: PrefixError) {
        #expect(throws: error) { try IPv6Prefix(parsing: text) }
    }

    @Test func acceptsAnyTextFormOfTheAddress() throws {
        #expect(try IPv6Prefix(parsing: "2001:0DB8:0:0::/32") == prefix6("2001:db8::/32"))
        #expect(try IPv6Prefix(parsing: "::ffff:192.0.2.0/120").description == "::ffff:192.0.2.0/120")
    }

    @Test func containsAgreesWithPlainArithmetic() {
        var random = SeededGenerator(seed: 3)
        for _ in 0..<2000 {
            let address = IPv6Address(high: random.next(), low: random.next())
            let length = Int.random(in: 0...128, using: &random)
            // One bit changed: inside if it lies behind the prefix.
            let bit = Int.random(in: 0..<128, using: &random)
            let other = IPv6Address(number: address.number ^ (UInt128(1) << UInt128(127 - bit)))
            let contains = IPv6Prefix(masking: address, length: length).contains(other)
            #expect(contains == (bit >= length))
        }
    }
}

@Suite struct PrefixErrorTests {
    @Test(arguments: [
        (PrefixError.malformed, "not of the form ADDRESS/LENGTH"),
        (.lengthOutOfRange(maximum: 32), "the prefix length must be 0 to 32"),
        (.lengthOutOfRange(maximum: 128), "the prefix length must be 0 to 128"),
        (.hostBitsSet(masked: "fd00::/32"), "bits are set behind the prefix length (did you mean fd00::/32?)"),
    ])
    func text(error: PrefixError, expected: String) { #expect(error.description == expected) }
}
