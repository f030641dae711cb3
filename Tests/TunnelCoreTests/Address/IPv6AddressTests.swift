import Testing
@testable import TunnelCore

@Suite struct IPv6AddressTests {
    // Numbers from Python: divmod(int(ipaddress.IPv6Address(text)), 2 ** 64).
    static let good: [(String, UInt64, UInt64)] = [
        ("::", 0x0000_0000_0000_0000, 0x0000_0000_0000_0000),
        ("::1", 0x0000_0000_0000_0000, 0x0000_0000_0000_0001),
        ("1::", 0x0001_0000_0000_0000, 0x0000_0000_0000_0000),
        ("1::8", 0x0001_0000_0000_0000, 0x0000_0000_0000_0008),
        ("1:2:3:4:5:6:7:8", 0x0001_0002_0003_0004, 0x0005_0006_0007_0008),
        ("1:2:3:4:5:6:7::", 0x0001_0002_0003_0004, 0x0005_0006_0007_0000),
        ("::2:3:4:5:6:7:8", 0x0000_0002_0003_0004, 0x0005_0006_0007_0008),
        ("1:2:3::8", 0x0001_0002_0003_0000, 0x0000_0000_0000_0008),
        ("1::3:4:5:6:7:8", 0x0001_0000_0003_0004, 0x0005_0006_0007_0008),
        ("1:2:3:4:5:6::8", 0x0001_0002_0003_0004, 0x0005_0006_0000_0008),
        ("ABCD:EF01:2345:6789:abcd:ef01:2345:6789", 0xABCD_EF01_2345_6789, 0xABCD_EF01_2345_6789),
        ("0001:0002::", 0x0001_0002_0000_0000, 0x0000_0000_0000_0000),
        ("::1.2.3.4", 0x0000_0000_0000_0000, 0x0000_0000_0102_0304),
        ("::ffff:192.0.2.1", 0x0000_0000_0000_0000, 0x0000_FFFF_C000_0201),
        ("64:ff9b::192.0.2.33", 0x0064_FF9B_0000_0000, 0x0000_0000_C000_0221),
        ("1:2:3:4:5:6:255.255.255.255", 0x0001_0002_0003_0004, 0x0005_0006_FFFF_FFFF),
        ("1:2:3:4:5::0.0.0.0", 0x0001_0002_0003_0004, 0x0005_0000_0000_0000),
        ("fe80::1", 0xFE80_0000_0000_0000, 0x0000_0000_0000_0001),
        ("0:0:0:0:0:0:0:0", 0x0000_0000_0000_0000, 0x0000_0000_0000_0000),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF),
        ("1::0:8", 0x0001_0000_0000_0000, 0x0000_0000_0000_0008),
        ("::0:0:0:0:0:0:0", 0x0000_0000_0000_0000, 0x0000_0000_0000_0000),
    ]

    @Test(arguments: good)
    func parses(text: String, high: UInt64, low: UInt64) {
        #expect(IPv6Address(text) == IPv6Address(high: high, low: low))
        #expect(IPv6Address(text[...]) == IPv6Address(high: high, low: low))
    }

    // Python's ipaddress refuses each of them, but for the zone, which has no place in a tunnel's configuration.
    @Test(arguments: [
        "", ":", ":::", "1", "1:", ":1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:", ":2:3:4:5:6:7:8", "::1::",
        "1::2::3", "1:::2", "1:2:3:4::5:6:7:8", "::2:3:4:5:6:7:8:9", "1::2:3:4:5:6:7:8", "12345::", "::12345", "g::", "::-1",
        "::+1",
        "::1/64", "[::1]", "::1%eth0", " ::1", "::1 ", ":: 1", "1.2.3.4", "::1.2.3", "::1.2.3.4.5", "::1.2.3.256", "::01.2.3.4",
        "::1.2.3.4:5", "1.2.3.4::", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:1.2.3.4", "::1.2.3.", "::.1.2.3", "0x1::", "::1:",
        "1::2:",
        "::ffff:1.2.3.4 ", "::a.b.c.d", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:1.2.3.4", "::00001", "::1\0", "::\u{661}",
    ])
    func refuses(text: String) {
        #expect(IPv6Address(text) == nil)
        #expect(IPv6Address(text[...]) == nil)
    }

    // RFC 5952 section 1: eight ways to write one address.
    @Test(arguments: [
        "2001:db8:0:0:1:0:0:1", "2001:0db8:0:0:1:0:0:1", "2001:db8::1:0:0:1", "2001:db8::0:1:0:0:1", "2001:0db8::1:0:0:1",
        "2001:db8:0:0:1::1", "2001:db8:0000:0:1::1", "2001:DB8:0:0:1::1",
    ])
    func hasOneCanonicalForm(text: String) { #expect(IPv6Address(text)?.description == "2001:db8::1:0:0:1") }

    // RFC 5952: the examples of sections 4 and 5, then ties and short runs.
    @Test(arguments: [
        // 4.1 leading zeros
        ("2001:0db8::0001", "2001:db8::1"),
        ("2001:db8:aaaa:bbbb:cccc:dddd:eeee:0001", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1"),
        ("2001:db8:aaaa:bbbb:cccc:dddd:eeee:001", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1"),
        ("2001:db8:0:0:0::1", "2001:db8::1"),
        // 4.2.1 shorten as much as possible
        ("2001:db8:0:0:0:0:2:1", "2001:db8::2:1"),
        ("2001:db8::0:1", "2001:db8::1"),
        // 4.2.2 one group is not shortened
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        // 4.2.3 the longest run; the first of equals
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        // 4.3 lower case
        ("2001:db8:aaaa:bbbb:cccc:dddd:eeee:AaAa", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:aaaa"),
        // 5 well-known prefix: dotted
        ("0:0:0:0:0:ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("::ffff:c000:201", "::ffff:192.0.2.1"),
        ("::ffff:0:0", "::ffff:0.0.0.0"),
        // ::ffff:0:0/96 alone
        ("::fffe:c000:201", "::fffe:c000:201"),
        ("::1:ffff:c000:201", "::1:ffff:c000:201"),
        // runs at the ends and in the middle
        ("0:0:0:0:0:0:0:0", "::"),
        ("1:0:0:0:0:0:0:0", "1::"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("0:2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
        ("1:2:3:4:5:6:7:0", "1:2:3:4:5:6:7:0"),
        ("0:0:3:4:5:6:7:8", "::3:4:5:6:7:8"),
        ("1:2:3:4:5:6:0:0", "1:2:3:4:5:6::"),
        ("0:0:3:4:5:6:0:0", "::3:4:5:6:0:0"),
        ("0:0:3:4:5:0:0:0", "0:0:3:4:5::"),
        ("0:1:0:1:0:1:0:1", "0:1:0:1:0:1:0:1"),
        ("1:0:0:2:0:0:3:0", "1::2:0:0:3:0"),
    ])
    func printsAsRFC5952(text: String, canonical: String) {
        #expect(IPv6Address(text)?.description == canonical)
    }

    // Python: random groups in patterns of zeros; ipaddress.IPv6Address(n).exploded.upper(), str(…), divmod(n, 2 ** 64).
    static let oracle: [(String, String, UInt64, UInt64)] = [
        ("00B5:B04E:6D65:C234:0001:00F9:000A:0065", "b5:b04e:6d65:c234:1:f9:a:65", 0x00B5_B04E_6D65_C234, 0x0001_00F9_000A_0065),
        ("41D0:0000:0000:0000:0000:0000:0000:000B", "41d0::b", 0x41D0_0000_0000_0000, 0x0000_0000_0000_000B),
        ("0000:000C:0005:000B:0059:B817:000C:0000", "0:c:5:b:59:b817:c:0", 0x0000_000C_0005_000B, 0x0059_B817_000C_0000),
        ("0000:0000:0000:4998:94CD:0000:0000:0000", "::4998:94cd:0:0:0", 0x0000_0000_0000_4998, 0x94CD_0000_0000_0000),
        ("BB09:0000:0000:F9B2:0004:0000:0000:32AD", "bb09::f9b2:4:0:0:32ad", 0xBB09_0000_0000_F9B2, 0x0004_0000_0000_32AD),
        ("0005:00A3:0000:0000:006F:0004:0000:0000", "5:a3::6f:4:0:0", 0x0005_00A3_0000_0000, 0x006F_0004_0000_0000),
        ("0003:0000:5084:0000:0000:577D:0000:0006", "3:0:5084::577d:0:6", 0x0003_0000_5084_0000, 0x0000_577D_0000_0006),
        ("5514:0000:0000:0000:0000:0000:0000:0000", "5514::", 0x5514_0000_0000_0000, 0x0000_0000_0000_0000),
        ("0000:0000:0000:0000:0000:0000:0000:00AC", "::ac", 0x0000_0000_0000_0000, 0x0000_0000_0000_00AC),
        ("0000:003B:0000:000F:0000:000B:0000:8A4B", "0:3b:0:f:0:b:0:8a4b", 0x0000_003B_0000_000F, 0x0000_000B_0000_8A4B),
        ("00F5:0000:0002:0000:0006:0000:000E:0000", "f5:0:2:0:6:0:e:0", 0x00F5_0000_0002_0000, 0x0006_0000_000E_0000),
        ("C9BD:00F3:901D:0000:0000:0008:0002:0009", "c9bd:f3:901d::8:2:9", 0xC9BD_00F3_901D_0000, 0x0000_0008_0002_0009),
        ("0000:0000:7B91:B6C4:2537:0005:0000:0000", "::7b91:b6c4:2537:5:0:0", 0x0000_0000_7B91_B6C4, 0x2537_0005_0000_0000),
        ("9F4B:0000:0000:0000:0004:0000:0000:0000", "9f4b::4:0:0:0", 0x9F4B_0000_0000_0000, 0x0004_0000_0000_0000),
        ("0000:0000:0000:C9FC:0000:0000:0000:C746", "::c9fc:0:0:0:c746", 0x0000_0000_0000_C9FC, 0x0000_0000_0000_C746),
        ("00E7:0002:00B0:22BF:0000:0000:0000:0000", "e7:2:b0:22bf::", 0x00E7_0002_00B0_22BF, 0x0000_0000_0000_0000),
        ("0000:0000:0000:0000:0009:5372:3A29:0003", "::9:5372:3a29:3", 0x0000_0000_0000_0000, 0x0009_5372_3A29_0003),
        ("0003:0000:0000:D996:0000:0000:E236:0000", "3::d996:0:0:e236:0", 0x0003_0000_0000_D996, 0x0000_0000_E236_0000),
        ("0000:0001:0000:0000:0033:0000:0000:20A4", "0:1::33:0:0:20a4", 0x0000_0001_0000_0000, 0x0033_0000_0000_20A4),
        ("00C1:007A:0000:0078:00F5:0000:0001:0005", "c1:7a:0:78:f5:0:1:5", 0x00C1_007A_0000_0078, 0x00F5_0000_0001_0005),
        ("B294:0006:E61F:0000:000B:001A:273A:000E", "b294:6:e61f:0:b:1a:273a:e", 0xB294_0006_E61F_0000, 0x000B_001A_273A_000E),
    ]

    @Test(arguments: oracle)
    func agreesWithPython(exploded: String, compressed: String, high: UInt64, low: UInt64) {
        let address = IPv6Address(high: high, low: low)
        #expect(IPv6Address(exploded) == address)
        #expect(IPv6Address(exploded.lowercased()) == address)
        #expect(IPv6Address(compressed) == address)
        #expect(address.description == compressed)
    }

    @Test func survivesTheRoundTrip() {
        var random = SeededGenerator(seed: 2)
        for _ in 0..<1500 {
            // Half of the groups zero, so that "::" has work to do.
            let keep = random.next()
            var halves: [UInt64] = [0, 0]
            for group in 0..<8 where keep >> UInt64(group) & 1 == 0 {
                halves[group / 4] |= (random.next() & 0xFFFF) << UInt64(group % 4 * 16)
            }
            let address = IPv6Address(high: halves[0], low: halves[1])
            let text = address.description
            let again = IPv6Address(text)
            let canonicalAgain = IPv6Address(text.uppercased())?.description
            #expect(again == address)
            #expect(canonicalAgain == text)
        }
    }

    @Test(arguments: [
        ("ff00::", true), ("ff02::1", true), ("ffff:ffff::", true), ("feff:ffff:ffff:ffff::", false), ("fe80::1", false),
        ("::", false),
    ])
    func multicast(text: String, expected: Bool) { #expect(v6(text).isMulticast == expected) }

    // fe80::/10 reaches up to febf (RFC 4291 section 2.4).
    @Test(arguments: [
        ("fe80::", true), ("fe80::1", true), ("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true), ("fec0::", false),
        ("fe7f:ffff::", false), ("ff02::1", false),
    ])
    func linkLocal(text: String, expected: Bool) { #expect(v6(text).isLinkLocal == expected) }

    @Test(arguments: [
        ("::ffff:0.0.0.0", true), ("::ffff:255.255.255.255", true), ("::fffe:ffff:ffff", false), ("::1:0:0:0", false),
        ("::1:ffff:1.2.3.4", false), ("1::ffff:1.2.3.4", false), ("::1.2.3.4", false),
    ])
    func ipv4Mapped(text: String, expected: Bool) { #expect(v6(text).isIPv4Mapped == expected) }

    // A point-to-point sit device on 192.0.2.1 shows fe80::c000:201.
    @Test(arguments: [("192.0.2.1", "fe80::c000:201"), ("10.0.0.1", "fe80::a00:1"), ("255.255.255.255", "fe80::ffff:ffff")])
    func embedsInLinkLocal(host: String, expected: String) {
        #expect(IPv6Address.linkLocal(embedding: v4(host)) == v6(expected))
    }

    @Test func ordersAsOneNumber() {
        let sorted = ["::", "::1", "::ffff:ffff:ffff:ffff", "0:0:0:1::", "1::", "7fff::", "8000::", "ffff::1"].map(v6)
        #expect(sorted == sorted.reversed().sorted())
        #expect(!(v6("1::2") < v6("1::2")))
        #expect(IPv6Address.unspecified == v6("::"))
        #expect(IPv6Address.loopback == v6("::1"))
    }

    @Test(arguments: [
        ("::", "::1"), ("::ffff:ffff:ffff:ffff", "0:0:0:1::"), ("1:2:3:4:ffff:ffff:ffff:ffff", "1:2:3:5::"),
        ("fe80::ff", "fe80::100"),
    ])
    func successor(text: String, next: String) { #expect(v6(text).successor == v6(next)) }

    @Test func theLastAddressHasNoSuccessor() {
        #expect(v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").successor == nil)
    }

    @Test func groups() {
        #expect(v6("1:2:3:4:5:6:7:fff8").groups == [1, 2, 3, 4, 5, 6, 7, 0xFFF8])
    }
}
