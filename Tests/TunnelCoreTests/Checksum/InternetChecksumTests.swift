import Testing
import TunnelCore

@Suite struct InternetChecksumTests {
    static func sum(_ pieces: [UInt8]...) -> InternetChecksum {
        var sum = InternetChecksum()
        for piece in pieces { sum.add(piece.raw) }
        return sum
    }

    // RFC 1071 section 3: 0001 f203 f4f5 f6f7 add up to 2ddf0, which is ddf2 with the carry.
    @Test func theExampleOfRFC1071() {
        let sum = Self.sum(hex("0001 f203 f4f5 f6f7"))
        #expect(sum.folded == 0xDDF2)
        #expect(sum.checksum == 0x220D)
        // In odd pieces, as the RFC's table has it.
        #expect(Self.sum(hex("0001 f2"), hex("03 f4f5"), hex("f6f7")).folded == 0xDDF2)
    }

    @Test func nothingAddsUpToNothing() {
        #expect(InternetChecksum().folded == 0)
        #expect(InternetChecksum().checksum == 0xFFFF)
        #expect(Self.sum([], [0], [], [0, 0]).folded == 0)
    }

    // Every length at every alignment, against one byte at a time.
    @Test func everyLengthAtEveryAlignment() {
        var random = SeededGenerator(seed: 6)
        let bytes = random.bytes(208)
        for alignment in 0..<8 {
            for length in 0...200 {
                var sum = InternetChecksum()
                sum.add(bytes.raw.extracting(alignment..<alignment + length))
                let expected = NaiveChecksum.sum(bytes[alignment..<alignment + length])
                if sum.folded != expected { Issue.record("\(length) bytes at \(alignment): \(sum.folded), not \(expected)") }
            }
        }
    }

    // Bytes that make the most of every carry.
    @Test(arguments: [[0xFF], [0xFF, 0x00], [0x00, 0xFF], [0xFF, 0xFE], [0x80, 0x00], [0x00, 0x01]] as [[UInt8]])
    func everyLengthOfAPattern(pattern: [UInt8]) {
        for length in 0...200 {
            let bytes = (0..<length).map { pattern[$0 % pattern.count] }
            let (folded, expected) = (Self.sum(bytes).folded, NaiveChecksum.sum(bytes))
            if folded != expected { Issue.record("\(length) bytes: \(folded), not \(expected)") }
        }
    }

    @Test func anySplitAddsUpToTheSame() {
        var random = SeededGenerator(seed: 7)
        for _ in 0..<400 {
            let bytes = random.bytes(Int.random(in: 0...200, using: &random))
            let cuts = (0..<Int.random(in: 0...6, using: &random)).map { _ in Int.random(in: 0...bytes.count, using: &random) }
                .sorted()
            var sum = InternetChecksum()
            for (start, end) in zip([0] + cuts, cuts + [bytes.count]) { sum.add(bytes.raw.extracting(start..<end)) }
            let expected = NaiveChecksum.sum(bytes)
            if sum.folded != expected { Issue.record("\(bytes.count) bytes cut at \(cuts): \(sum.folded), not \(expected)") }
        }
    }

    @Test func everyCutOfOneBuffer() {
        var random = SeededGenerator(seed: 8)
        let bytes = random.bytes(67)
        let expected = NaiveChecksum.sum(bytes)
        for first in 0...67 {
            for second in first...67 {
                var sum = InternetChecksum()
                sum.add(bytes.raw.extracting(0..<first))
                sum.add(bytes.raw.extracting(first..<second))
                sum.add(bytes.raw.extracting(second..<67))
                if sum.folded != expected { Issue.record("cut at \(first) and \(second): \(sum.folded)") }
            }
        }
    }

    @Test(arguments: [65535, 65536], [0xFF, 0x00, 0xA5] as [UInt8])
    func longOnes(count: Int, fill: UInt8) {
        let bytes = [UInt8](repeating: fill, count: count)
        #expect(Self.sum(bytes).folded == NaiveChecksum.sum(bytes))
        // Again behind one byte, and many times over.
        #expect(Self.sum([1], bytes).folded == NaiveChecksum.sum([1] + bytes))
        var many = InternetChecksum()
        for _ in 0..<20 { many.add(bytes.raw) }
        let once = UInt32(NaiveChecksum.sum(Array(repeating: fill, count: count * 2)))  // an even number of bytes
        #expect(UInt32(many.folded) % 0xFFFF == once * 10 % 0xFFFF)
    }

    @Test func numbersAreAddedInNetworkOrder() {
        var sum = InternetChecksum()
        sum.add(0x0102 as UInt16)
        #expect(sum.folded == 0x0102)
        sum.add(0x0304_0506 as UInt32)
        #expect(sum.folded == 0x0102 + 0x0304 + 0x0506)
        sum.add(v6("1:2:3:4:5:6:7:8"))
        #expect(sum.folded == 0x0102 + 0x0304 + 0x0506 + 36)
        var carry = InternetChecksum()
        carry.add(0xFFFF_FFFF as UInt32)
        carry.add(v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
        #expect(carry.folded == 0xFFFF)
    }

    struct Packet: CustomTestStringConvertible {
        let name: String
        let protocolNumber: UInt8
        /// Where the upper layer begins.
        let start: Int
        /// From there to the checksum.
        let field: Int
        let bytes: [UInt8]
        var testDescription: String { "\(name), \(bytes.count) bytes" }

        init(_ name: String, _ protocolNumber: UInt8, _ start: Int, _ field: Int, _ bytes: String) {
            (self.name, self.protocolNumber, self.start, self.field, self.bytes) = (
                name, protocolNumber, start, field, hex(bytes)
            )
        }
    }

    static let addresses6 = "20010db8646401000000000000000001 20010db864c802000000000000000002"
    static let forty = "0b30557a9fc4e90e33587da2c7ec11365b80a5caef14395e83a8cdf2173c6186abd0f51a3f6489ae"

    // scapy: bytes(IPv6(src, dst) / TCP(sport=1024, dport=443, seq=5, ack=6, flags="A", window=512) / data), likewise
    // UDP(sport=1024, dport=53) and ICMPv6EchoRequest(id=1, seq=2), and over IP; all checksums are scapy's.
    static let packets = [
        Packet("TCP over IPv6", 6, 40, 16, "6000000000140640 \(addresses6) 040001bb000000050000000650100200 806d0000"),
        Packet("TCP over IPv6", 6, 40, 16, "6000000000150640 \(addresses6) 040001bb000000050000000650100200 756c0000 0b"),
        Packet(
            "TCP over IPv6", 6, 40, 16, "60000000001b0640 \(addresses6) 040001bb000000050000000650100200 96f60000 0b30557a9fc4e9"),
        Packet("TCP over IPv6", 6, 40, 16, "60000000003c0640 \(addresses6) 040001bb000000050000000650100200 ae8f0000 \(forty)"),
        Packet("UDP over IPv6", 17, 40, 6, "6000000000081140 \(addresses6) 040000350008d407"),
        Packet("UDP over IPv6", 17, 40, 6, "6000000000091140 \(addresses6) 040000350009c905 0b"),
        Packet("UDP over IPv6", 17, 40, 6, "60000000000f1140 \(addresses6) 04000035000fea89 0b30557a9fc4e9"),
        Packet("UDP over IPv6", 17, 40, 6, "6000000000301140 \(addresses6) 0400003500300202 \(forty)"),
        // The sum of this one is 0, so the field says 0xffff.
        Packet("UDP over IPv6", 17, 40, 6, "60000000000a1140 \(addresses6) 04000035000affff d403"),
        Packet("ICMPv6", 58, 40, 2, "6000000000083a40 \(addresses6) 8000581800010002"),
        Packet("ICMPv6", 58, 40, 2, "6000000000093a40 \(addresses6) 80004d1700010002 0b"),
        Packet("ICMPv6", 58, 40, 2, "6000000000303a40 \(addresses6) 8000863a00010002 \(forty)"),
        Packet(
            "TCP over IPv4", 6, 20, 16, "450000280001000040068e93c0000201c6336407 040001bb000000050000000650100200 bbd20000"),
        Packet(
            "TCP over IPv4", 6, 20, 16,
            "4500002f0001000040068e8cc0000201c6336407 040001bb000000050000000650100200 d25b0000 0b30557a9fc4e9"),
        Packet("UDP over IPv4", 17, 20, 6, "4500001d0001000040118e93c0000201c6336407 040000350009046b 0b"),
        Packet("UDP over IPv4", 17, 20, 6, "450000440001000040118e6cc0000201c6336407 0400003500303d67 \(forty)"),
    ]

    static func pseudo(_ packet: Packet) -> InternetChecksum {
        var sum = InternetChecksum()
        let length = packet.bytes.count - packet.start
        if let view = IPv4View(packet.bytes.raw) {
            sum.addPseudoHeader(
                source: view.source, destination: view.destination, length: length, protocolNumber: packet.protocolNumber)
        } else if let view = IPv6View(packet.bytes.raw) {
            sum.addPseudoHeader(
                source: view.source, destination: view.destination, length: length, protocolNumber: packet.protocolNumber)
        }
        return sum
    }

    @Test(arguments: packets)
    func agreesWithScapy(packet: Packet) {
        let field = packet.start + packet.field
        let expected = UInt16(packet.bytes[field]) << 8 | UInt16(packet.bytes[field + 1])
        var empty = packet.bytes
        (empty[field], empty[field + 1]) = (0, 0)
        var computed = Self.pseudo(packet)
        computed.add(empty.raw.extracting(packet.start..<empty.count))
        #expect((packet.protocolNumber == 17 ? computed.udpChecksum : computed.checksum) == expected)
        // With the checksum in its place all comes to 0.
        var verified = Self.pseudo(packet)
        verified.add(packet.bytes.raw.extracting(packet.start..<packet.bytes.count))
        #expect(verified.checksum == 0)
    }

    @Test func anIPv4HeaderWithItsChecksumComesTo0() {
        #expect(Self.sum(hex("45b90044 12344000 3f293c68 c0000201 c6336407")).checksum == 0)
    }

    // Lengths of more than 16 bits and carries in the pseudo header; naive on the right.
    @Test func pseudoHeaderAgainstTheNaiveSum() {
        var random = SeededGenerator(seed: 9)
        for _ in 0..<500 {
            let bytes = random.bytes(32)
            let length = [0, 1, 0xFFFF, 0x10000, 0x12345, Int.random(in: 0...70000, using: &random)].randomElement(
                using: &random)!
            let number = UInt8.random(in: 0...255, using: &random)
            func half(_ start: Int) -> UInt64 { bytes[start..<start + 8].reduce(0) { $0 << 8 | UInt64($1) } }
            var sum = InternetChecksum()
            sum.addPseudoHeader(
                source: IPv6Address(high: half(0), low: half(8)), destination: IPv6Address(high: half(16), low: half(24)),
                length: length,
                protocolNumber: number)
            let expected = NaiveChecksum.sum(NaiveChecksum.pseudoHeader(addresses: bytes, length: length, protocolNumber: number))
            if sum.folded != expected { Issue.record("\(bytes) \(length) \(number): \(sum.folded), not \(expected)") }
        }
    }

    // RFC 768: a sum of 0 is sent as 0xffff; nothing else is changed.
    @Test func udpNeverSendsZero() {
        let zero = Self.sum([0xFF, 0xFF])
        #expect(zero.checksum == 0)
        #expect(zero.udpChecksum == 0xFFFF)
        #expect(Self.sum([0xFF, 0xFE]).udpChecksum == 0x0001)
        #expect(InternetChecksum().udpChecksum == 0xFFFF)
    }
}

@Suite struct ChecksumUpdateTests {
    // RFC 1624 section 4: the example that equation 2 of RFC 1141 gets wrong.
    @Test func theExampleOfRFC1624() {
        #expect(InternetChecksum.updated(0xDD2F, replacing: 0x5555, with: 0x3285) == 0x0000)
    }

    // ~(~HC + ~m + m'), by hand.
    @Test(
        arguments: [
            // unchanged words leave the checksum
            (0x1234, 0x0000, 0x0000, 0x1234), (0x1234, 0xABCD, 0xABCD, 0x1234), (0x0000, 0x0001, 0x0001, 0x0000),
            // one more, one less
            (0x1234, 0x0000, 0x0001, 0x1233), (0x1234, 0x0001, 0x0000, 0x1235),
            // across the carry
            (0x0001, 0x0000, 0x0002, 0xFFFE), (0xFFFE, 0x0002, 0x0000, 0x0001),
            // 0 and 0xffff are the same number: taking one for the other changes nothing
            (0x1234, 0x0000, 0xFFFF, 0x1234), (0x1234, 0xFFFF, 0x0000, 0x1234),
        ] as [(UInt16, UInt16, UInt16, UInt16)])
    func cornerCases(checksum: UInt16, old: UInt16, new: UInt16, expected: UInt16) {
        #expect(InternetChecksum.updated(checksum, replacing: old, with: new) == expected)
    }

    // Against a checksum made anew. A header is never all zero, so its sum is never 0 and its checksum never 0xffff.
    @Test func agreesWithAFreshChecksum() {
        var random = SeededGenerator(seed: 10)
        let edges: [UInt8] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF]
        for round in 0..<3000 {
            var bytes = round % 2 == 0 ? random.bytes(20) : (0..<20).map { _ in edges.randomElement(using: &random)! }
            bytes[18] = 0x45
            let before = ~NaiveChecksum.sum(bytes)
            let word = Int.random(in: 0..<9, using: &random) * 2
            let old = UInt16(bytes[word]) << 8 | UInt16(bytes[word + 1])
            let new = [0, 0xFFFF, ~old, old, UInt16.random(in: 0...0xFFFF, using: &random)].randomElement(using: &random)!
            (bytes[word], bytes[word + 1]) = (UInt8(new >> 8), UInt8(new & 255))
            let (updated, fresh) = (InternetChecksum.updated(before, replacing: old, with: new), ~NaiveChecksum.sum(bytes))
            if updated != fresh { Issue.record("\(before): \(old) -> \(new): \(updated), not \(fresh)") }
        }
    }
}
