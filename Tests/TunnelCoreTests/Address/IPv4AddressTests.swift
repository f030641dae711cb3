import Testing
import TunnelCore

@Suite struct IPv4AddressTests {
    // Numbers from Python: int(ipaddress.IPv4Address(text)); from 57.212.57.119 on of random ones.
    static let good: [(String, UInt32)] = [
        ("0.0.0.0", 0x0000_0000),
        ("255.255.255.255", 0xFFFF_FFFF),
        ("10.0.0.1", 0x0A00_0001),
        ("192.0.2.1", 0xC000_0201),
        ("127.0.0.1", 0x7F00_0001),
        ("1.2.3.4", 0x0102_0304),
        ("100.64.0.0", 0x6440_0000),
        ("203.0.113.99", 0xCB00_7163),
        ("9.10.99.100", 0x090A_6364),
        ("57.212.57.119", 0x39D4_3977),
        ("176.198.73.161", 0xB0C6_49A1),
        ("116.64.88.234", 0x7440_58EA),
        ("181.6.222.225", 0xB506_DEE1),
        ("59.76.89.230", 0x3B4C_59E6),
        ("208.122.154.134", 0xD07A_9A86),
        ("30.132.82.59", 0x1E84_523B),
        ("233.243.39.2", 0xE9F3_2702),
        ("201.78.4.52", 0xC94E_0434),
        ("129.235.213.58", 0x81EB_D53A),
        ("56.4.244.46", 0x3804_F42E),
        ("46.42.65.214", 0x2E2A_41D6),
    ]

    @Test(arguments: good)
    func parsesAndPrints(text: String, number: UInt32) {
        #expect(IPv4Address(text)?.rawValue == number)
        #expect(IPv4Address(text[...])?.rawValue == number)
        #expect(IPv4Address(rawValue: number).description == text)
        #expect(
            IPv4Address(
                UInt8(number >> 24), UInt8(number >> 16 & 255), UInt8(number >> 8 & 255), UInt8(number & 255)
            ).rawValue == number)
    }

    // Python's ipaddress and inet_pton(3) refuse each of them.
    @Test(arguments: [
        "", ".", "...", "1", "1.2", "1.2.3", "1.2.3.4.5", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.4.", "256.0.0.0", "0.0.0.256",
        "1.2.3.999", "1.2.3.1000", "01.2.3.4", "1.2.3.04", "00.0.0.0", "1.2.3.00", "0x1.2.3.4", "1.2.3.a", "1,2,3,4", "-1.2.3.4",
        "+1.2.3.4", "1.2.3.4/8", " 1.2.3.4", "1.2.3.4 ", "1. 2.3.4", "16909060", "99999999999.1.1.1", "1.2.3.4:80", "١.2.3.4",
        "1.2.3.18446744073709551617", "4294967297.1.1.1", "1.2.3.4\n", "1.2.3.4\0",
    ])
    func refuses(text: String) {
        #expect(IPv4Address(text) == nil)
        #expect(IPv4Address(text[...]) == nil)
    }

    @Test func survivesTheRoundTrip() {
        var random = SeededGenerator(seed: 1)
        for _ in 0..<2000 {
            let address = IPv4Address(rawValue: UInt32(truncatingIfNeeded: random.next()))
            let back = IPv4Address(address.description)
            #expect(back == address)
        }
    }

    // RFC 6890; the edges of each range.
    @Test(arguments: [
        ("0.0.0.0", false), ("0.255.255.255", false), ("1.0.0.0", true), ("126.255.255.255", true), ("127.0.0.0", false),
        ("127.255.255.255", false), ("128.0.0.0", true), ("223.255.255.255", true), ("224.0.0.0", false),
        ("239.255.255.255", false), ("240.0.0.0", false), ("255.255.255.255", false), ("10.0.0.1", true), ("169.254.1.1", true),
        ("192.168.0.1", true),
    ])
    func unicastHost(text: String, expected: Bool) { #expect(v4(text).isUnicastHost == expected) }

    // RFC 1918, 3927 and 6598
    @Test(arguments: [
        ("9.255.255.255", false), ("10.0.0.0", true), ("10.255.255.255", true), ("11.0.0.0", false), ("172.15.255.255", false),
        ("172.16.0.0", true), ("172.31.255.255", true), ("172.32.0.0", false), ("192.167.255.255", false), ("192.168.0.0", true),
        ("192.168.255.255", true), ("192.169.0.0", false), ("127.0.0.1", false),
        ("169.253.255.255", false), ("169.254.0.0", true), ("169.254.255.255", true), ("169.255.0.0", false),
        ("100.63.255.255", false), ("100.64.0.0", true), ("100.127.255.255", true), ("100.128.0.0", false),
    ])
    func privateUse(text: String, expected: Bool) { #expect(v4(text).isPrivateUse == expected) }

    @Test func ordersAsNumbers() {
        #expect(v4("9.255.255.255") < v4("10.0.0.0"))
        #expect(v4("127.255.255.255") < v4("128.0.0.0"))
        #expect(!(v4("10.0.0.0") < v4("10.0.0.0")))
        #expect(IPv4Address.any == v4("0.0.0.0"))
    }
}
