import Testing
import TunnelCore

@Suite struct IPv4HeaderTests {
    struct Vector: Sendable {
        let bytes: [UInt8]
        let header: IPv4Header
    }

    // scapy: bytes(IP(…)), the checksum its own.
    static let vectors: [Vector] = [
        // IP(src="192.0.2.1", dst="198.51.100.7", tos=0xb9, id=0x1234, flags="DF", ttl=63, proto=41, len=68)
        vector("45b90044 12344000 3f293c68 c0000201 c6336407", 68, "192.0.2.1", "198.51.100.7") {
            $0.typeOfService = 0xB9
            $0.identification = 0x1234
            $0.ttl = 63
        },
        // IP(src="10.100.100.1", dst="10.100.200.2", id=0xffff, flags="MF", frag=185, ttl=255, proto=41, len=1500)
        vector("450005dc ffff20b9 ff295474 0a646401 0a64c802", 1500, "10.100.100.1", "10.100.200.2") {
            $0.identification = 0xFFFF
            $0.dontFragment = false
            $0.moreFragments = true
            $0.fragmentOffset = 185
            $0.ttl = 255
        },
        // IP(src="10.0.0.1", dst="10.255.255.254", tos=3, id=0, ttl=1, proto=1, len=20)
        vector("45030014 00000000 0101a4e8 0a000001 0afffffe", 20, "10.0.0.1", "10.255.255.254") {
            $0.typeOfService = 3
            $0.dontFragment = false
            $0.ttl = 1
            $0.protocolNumber = 1
        },
    ]

    static func vector(
        _ bytes: String, _ length: UInt16, _ source: String, _ destination: String, _ set: (inout IPv4Header) -> Void
    ) -> Vector {
        var header = IPv4Header(totalLength: length, source: v4(source), destination: v4(destination))
        set(&header)
        return Vector(bytes: hex(bytes), header: header)
    }

    @Test(arguments: vectors)
    func decodes(vector: Vector) throws {
        guard let view = IPv4View(vector.bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(IPv4Header(view) == vector.header)
        #expect(view.headerLength == 20)
        #expect(view.totalLength == Int(vector.header.totalLength))
        #expect(view.fragmentOffset == Int(vector.header.fragmentOffset) * 8)
        #expect(view.checksum == UInt16(vector.bytes[10]) << 8 | UInt16(vector.bytes[11]))
        #expect(view.source == vector.header.source && view.destination == vector.header.destination)
        #expect(view.dontFragment == vector.header.dontFragment && view.moreFragments == vector.header.moreFragments)
        #expect(view.typeOfService == vector.header.typeOfService && view.identification == vector.header.identification)
        #expect(view.ttl == vector.header.ttl && view.protocolNumber == vector.header.protocolNumber)
    }

    @Test(arguments: vectors, [0x00, 0xFF] as [UInt8])
    func emitsEveryByteAndNoOther(vector: Vector, fill: UInt8) {
        let bytes = written(24, over: fill) { vector.header.emit(into: &$0) }
        #expect(bytes == vector.bytes + Array(repeating: fill, count: 4))
    }

    @Test func theDefaultsAreATunnelPackets() {
        let header = IPv4Header(totalLength: 60, source: v4("10.0.0.1"), destination: v4("10.0.0.2"))
        #expect(header.protocolNumber == 41)
        #expect(header.ttl == 64)
        #expect(header.dontFragment && !header.moreFragments)
        #expect(header.fragmentOffset == 0)
    }

    // scapy: IP(src="192.0.2.1", dst="198.51.100.7", tos=2, id=7, flags="DF", proto=41,
    //           options=[IPOption_RR(routers=["0.0.0.0"] * 9), IPOption_NOP()])
    static let withOptions = hex(
        """
        4f02003c 00074000 4029392c c0000201 c6336407
        07270400 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000001
        """)

    @Test func decodesAHeaderFullOfOptions() {
        let bytes = Self.withOptions
        guard let view = IPv4View(bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(view.headerLength == 60)
        #expect(view.totalLength == 60)
        #expect(view.source == v4("192.0.2.1"))
        #expect(view.destination == v4("198.51.100.7"))
    }

    @Test func refusesEveryShorterLength() {
        for bytes in [Self.vectors[0].bytes, Self.withOptions] {
            for count in 0..<bytes.count {
                if let _ = IPv4View(bytes.raw.extracting(0..<count)) { Issue.record("\(count) of \(bytes.count) bytes taken") }
            }
        }
    }

    // RFC 791: version 4, at least five words of header; the header must be there, whatever else follows.
    @Test func takesOnlyVersion4AndAWholeHeader() {
        for first in UInt8.min...UInt8.max {
            for count in [20, 24, 59, 60, 64] {
                var bytes = [UInt8](repeating: 0xEE, count: count)
                bytes[0] = first
                let isGood = first >> 4 == 4 && first & 15 >= 5 && Int(first & 15) * 4 <= count
                let isTaken: Bool = if let _ = IPv4View(bytes.raw) { true } else { false }
                if isTaken != isGood { Issue.record("first byte \(first), \(count) bytes: \(isTaken)") }
            }
        }
    }

    // RFC 791: three bits of flags, 13 of offset; an offset of more bits does not reach the flags.
    @Test func fragmentFieldsStayApart() {
        var header = IPv4Header(totalLength: 28, source: v4("10.0.0.1"), destination: v4("10.0.0.2"))
        for (dontFragment, moreFragments, offset, expected) in [
            (true, true, 0, 0x6000), (false, false, 0x1FFF, 0x1FFF), (true, false, 1, 0x4001), (false, true, 0x1FFF, 0x3FFF),
            (false, false, 0xE001, 0x0001),
        ] as [(Bool, Bool, UInt16, UInt16)] {
            (header.dontFragment, header.moreFragments, header.fragmentOffset) = (dontFragment, moreFragments, offset)
            let bytes = written(20, over: 0) { [header] in header.emit(into: &$0) }
            #expect(UInt16(bytes[6]) << 8 | UInt16(bytes[7]) == expected)
        }
    }
}
