import Testing
import TunnelCore

@Suite struct DomainTests {
    struct Vector: CustomTestStringConvertible {
        let prefix: String
        let relayPrefix: String
        let host: String
        let delegated: String
        let source: String
        var testDescription: String { "\(prefix) + \(relayPrefix): \(host) <-> \(delegated) (\(source))" }
    }

    static let vectors = [
        Vector(
            prefix: "2001:db8::/32", relayPrefix: "10.0.0.0/8", host: "10.100.100.1", delegated: "2001:db8:6464:100::/56",
            source: "RFC 5969 section 7.1.1"),
        Vector(
            prefix: "2001:db8::/32", relayPrefix: "10.0.0.0/8", host: "10.0.0.1", delegated: "2001:db8:0:100::/56",
            source: "RFC 5969 section 7.1.1, the border relay"),
        Vector(
            prefix: "2001:db8::/32", relayPrefix: "10.0.0.0/8", host: "10.100.200.2", delegated: "2001:db8:64c8:200::/56",
            source: "TR-181 IPv6rd theory of operation"),
        Vector(
            prefix: "2a01:79c::/30", relayPrefix: "0.0.0.0/0", host: "81.167.4.214", delegated: "2a01:79d:469c:1358::/62",
            source: "Altibox, by ipv6calc: n is no multiple of 4"),
        Vector(
            prefix: "2a02:58:54::/46", relayPrefix: "185.227.120.0/22", host: "185.227.123.123",
            delegated: "2a02:58:57:7b00::/56",
            source: "Tweak: n > 32, and m = 22"),
        Vector(
            prefix: "2002::/16", relayPrefix: "0.0.0.0/0", host: "172.16.2.2", delegated: "2002:ac10:202::/48",
            source: "6to4; VPP test_sixrd.py"),
        Vector(
            prefix: "2002::/16", relayPrefix: "172.0.0.0/8", host: "172.16.2.2", delegated: "2002:1002:200::/40",
            source: "VPP test_6rd_ip4_to_ip6_suffix"),
        Vector(
            prefix: "fd00:0:0:ab00::/56", relayPrefix: "192.168.1.0/24", host: "192.168.1.155", delegated: "fd00:0:0:ab9b::/64",
            source: "56 + 8, Stripe's network"),
        Vector(
            prefix: "fd00:0:0:ab00::/56", relayPrefix: "192.168.1.0/24", host: "192.168.1.200", delegated: "fd00:0:0:abc8::/64",
            source: "56 + 8, Stripe's network"),
        Vector(
            prefix: "fd12:3456:7800::/40", relayPrefix: "10.0.0.0/8", host: "10.1.2.3", delegated: "fd12:3456:7801:203::/64",
            source: "40 + 24"),
        // Edges, by hand.
        Vector(
            prefix: "fd00::/32", relayPrefix: "0.0.0.0/0", host: "255.255.255.255", delegated: "fd00:0:ffff:ffff::/64",
            source: "32 + 32: nothing left over"),
        Vector(prefix: "::/0", relayPrefix: "0.0.0.0/0", host: "32.1.13.184", delegated: "2001:db8::/32", source: "n = 0"),
        Vector(
            prefix: "fd00:1:2:3::/64", relayPrefix: "10.1.2.3/32", host: "10.1.2.3", delegated: "fd00:1:2:3::/64",
            source: "one host: m = 32, n = 64"),
        Vector(prefix: "::/0", relayPrefix: "10.1.2.3/32", host: "10.1.2.3", delegated: "::/0", source: "one host, n = 0"),
        Vector(
            prefix: "fd00::/33", relayPrefix: "128.0.0.0/1", host: "192.0.2.1", delegated: "fd00:0:4000:201::/64",
            source: "33 + 31, across the 32-bit words"),
    ]

    @Test(arguments: vectors)
    func mapsBothWays(vector: Vector) throws {
        let domain = try Domain(prefix: prefix6(vector.prefix), relayPrefix: prefix4(vector.relayPrefix))
        let delegated = prefix6(vector.delegated)
        #expect(domain.delegatedPrefix(of: v4(vector.host)) == delegated)
        #expect(domain.delegatedPrefixLength == delegated.length)
        for address in [delegated.address, delegated.last] {
            #expect(domain.contains(address))
            #expect(domain.host(embeddedIn: address) == v4(vector.host))
        }
        #expect(domain.contains(v4(vector.host)))
        #expect(domain.prefix == prefix6(vector.prefix))
        #expect(domain.relayPrefix == prefix4(vector.relayPrefix))
        #expect(domain.prefixLength == prefix6(vector.prefix).length)
        #expect(domain.relayPrefixLength == prefix4(vector.relayPrefix).length)
    }

    @Test func sixToFourIsWhatSitUsesUnlessTold() throws {
        #expect(Domain.sixToFour == (try Domain(prefix: prefix6("2002::/16"), relayPrefix: prefix4("0.0.0.0/0"))))
        #expect(Domain.sixToFour.delegatedPrefix(of: v4("192.0.2.1")) == prefix6("2002:c000:201::/48"))
    }

    @Test(arguments: [
        ("10.0.0.0", true), ("10.255.255.255", true), ("9.255.255.255", false), ("11.0.0.0", false), ("0.0.0.0", false),
    ])
    func onlyHostsOfTheRelayPrefixOwnOne(host: String, isMember: Bool) throws {
        let domain = try Domain(prefix: prefix6("2001:db8::/32"), relayPrefix: prefix4("10.0.0.0/8"))
        #expect(domain.contains(v4(host)) == isMember)
        #expect((domain.delegatedPrefix(of: v4(host)) != nil) == isMember)
    }

    @Test(arguments: [
        ("2001:db8::", true), ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true), ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false),
        ("2001:db9::", false), ("::", false), ("2002:db8::", false),
    ])
    func containsAddresses(address: String, expected: Bool) throws {
        let domain = try Domain(prefix: prefix6("2001:db8::/32"), relayPrefix: prefix4("10.0.0.0/8"))
        #expect(domain.contains(v6(address)) == expected)
    }

    // sit answers EINVAL: n + 32 - m is more than 64. (Its other cases, m > 32 and bits behind the prefixes, are no
    // prefixes at all: see PrefixTests.)
    @Test(arguments: [
        ("2001:db8::/33", "0.0.0.0/0", 65), ("fd00::/40", "10.0.0.0/7", 65), ("fd00::/64", "10.0.0.0/31", 65),
        ("fd00::/65", "10.0.0.0/32", 65), ("::/128", "0.0.0.0/0", 160), ("fd00::1/128", "10.0.0.1/32", 128),
        ("fd00::/64", "0.0.0.0/0", 96),
    ])
    func refusesWhatSitRefuses(prefix: String, relayPrefix: String, length: Int) {
        #expect(throws: DomainError.delegatedPrefixTooLong(length: length)) {
            try Domain(prefix: prefix6(prefix), relayPrefix: prefix4(relayPrefix))
        }
    }

    @Test func theErrorNamesTheLength() {
        #expect(DomainError.delegatedPrefixTooLong(length: 65).description.contains("/65"))
    }

    @Test func acceptsExactlyWhatSitAccepts() {
        for n in 0...128 {
            for m in 0...32 {
                let domain = try? Domain(
                    prefix: IPv6Prefix(masking: v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), length: n),
                    relayPrefix: IPv4Prefix(masking: v4("255.255.255.255"), length: m))
                if (domain != nil) != (n + 32 - m <= 64) { Issue.record("n = \(n), m = \(m)") }
            }
        }
    }

    /// The bits of a number, first bit first.
    private static func bits(_ value: some FixedWidthInteger & UnsignedInteger) -> [Bool] {
        (0..<value.bitWidth).map { value >> (value.bitWidth - 1 - $0) & 1 == 1 }
    }

    /// sit's `check_6rd`, seen as one 64-bit window over two 32-bit words of the address: skip the n % 32 bits of the
    /// prefix that are in the window, take the 32 - m bits that follow.
    private static func window(_ address: IPv6Address, n: Int, relay: IPv4Address, m: Int) -> IPv4Address {
        let words = [
            UInt32(address.high >> 32), UInt32(truncatingIfNeeded: address.high), UInt32(address.low >> 32),
            UInt32(truncatingIfNeeded: address.low),
        ]
        let pair = UInt64(words[n / 32]) << 32 | UInt64(words[n / 32 + 1])
        let skipped = pair << UInt64(n % 32)
        return IPv4Address(rawValue: relay.rawValue | UInt32(truncatingIfNeeded: skipped >> UInt64(32 + m)))
    }

    @Test func agreesWithBitByBitCopying() throws {
        var random = SeededGenerator(seed: 4)
        for round in 0..<1500 {
            let m = [0, 32, Int.random(in: 0...32, using: &random)][round % 3]
            let n = [0, 32 + m, Int.random(in: 0...32 + m, using: &random)][round / 3 % 3]
            let prefix = IPv6Prefix(masking: IPv6Address(high: random.next(), low: random.next()), length: n)
            let relayPrefix = IPv4Prefix(masking: IPv4Address(rawValue: UInt32(truncatingIfNeeded: random.next())), length: m)
            let domain = try Domain(prefix: prefix, relayPrefix: relayPrefix)
            let (prefixBits, relayBits) = (Self.bits(prefix.address.number), Self.bits(relayPrefix.address.rawValue))

            // Address -> host.
            let free = UInt128(random.next()) << 64 | UInt128(random.next())
            let address = IPv6Address(number: prefix.address.number | (n == 128 ? 0 : free >> UInt128(n)))
            let hostBits = relayBits[..<m] + Self.bits(address.number)[n..<n + 32 - m]
            let host = domain.host(embeddedIn: address)
            if Self.bits(host.rawValue) != Array(hostBits) { Issue.record("\(prefix) \(relayPrefix): \(address) -> \(host)") }
            let windowed = Self.window(address, n: n, relay: relayPrefix.address, m: m)
            if host != windowed { Issue.record("\(prefix) \(relayPrefix): \(address) -> \(host), sit has \(windowed)") }

            // Host -> prefix.
            let member = IPv4Address(
                rawValue: relayPrefix.address.rawValue | (m == 32 ? 0 : UInt32(truncatingIfNeeded: random.next()) >> UInt32(m)))
            let delegated = try #require(domain.delegatedPrefix(of: member))
            let expected = prefixBits[..<n] + Self.bits(member.rawValue)[m...] + Array(repeating: false, count: 96 + m - n)
            if Self.bits(delegated.address.number) != Array(expected) || delegated.length != n + 32 - m {
                Issue.record("\(prefix) \(relayPrefix): \(member) -> \(delegated)")
            }
            if domain.host(embeddedIn: delegated.last) != member {
                Issue.record("\(delegated.last) does not lead back to \(member)")
            }
        }
    }

    @Test func fitsACacheLine() { #expect(MemoryLayout<Domain>.size <= 64) }
}
