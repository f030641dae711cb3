import Testing
@testable import TunnelCore

@Suite struct IPv6HeaderTests {
    struct Vector: Sendable {
        let bytes: [UInt8]
        let header: IPv6Header
    }

    static func vector(
        _ bytes: String, _ length: UInt16, _ next: UInt8, _ source: String, _ destination: String,
        _ set: (inout IPv6Header) -> Void
    ) -> Vector {
        var header = IPv6Header(payloadLength: length, nextHeader: next, source: v6(source), destination: v6(destination))
        set(&header)
        return Vector(bytes: hex(bytes), header: header)
    }

    // scapy: bytes(IPv6(…))
    static let vectors: [Vector] = [
        // tc=0xb9, fl=0xabcde, plen=1234, nh=17, hlim=63
        vector(
            "6b9abcde 04d2113f 20010db864640100 0000000000000001 20010db864c80200 0000000000000002", 1234, 17,
            "2001:db8:6464:100::1", "2001:db8:64c8:200::2"
        ) {
            $0.trafficClass = 0xB9
            $0.flowLabel = 0xABCDE
            $0.hopLimit = 63
        },
        // tc=0, fl=0, plen=0, nh=59, hlim=255
        vector(
            "60000000 00003bff fe80000000000000 0000000000000001 ff02000000000000 0000000000000002", 0, 59, "fe80::1", "ff02::2"
        ) { $0.hopLimit = 255 },
        // tc=0xff, fl=0xfffff, plen=65535, nh=255, hlim=255
        vector(
            "6fffffff ffffffff ffffffffffffffff ffffffffffffffff 0000000000000000 0000000000000000", 65535, 255,
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::"
        ) {
            $0.trafficClass = 0xFF
            $0.flowLabel = 0xFFFFF
            $0.hopLimit = 255
        },
    ]

    @Test(arguments: vectors)
    func decodes(vector: Vector) {
        guard let view = IPv6View(vector.bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(IPv6Header(view) == vector.header)
        #expect(view.version == 6)
        #expect(view.trafficClass == vector.header.trafficClass)
        #expect(view.flowLabel == vector.header.flowLabel)
        #expect(view.payloadLength == Int(vector.header.payloadLength))
        #expect(view.totalLength == 40 + Int(vector.header.payloadLength))
        #expect(view.nextHeader == vector.header.nextHeader)
        #expect(view.hopLimit == vector.header.hopLimit)
        #expect(view.source == vector.header.source)
        #expect(view.destination == vector.header.destination)
    }

    @Test(arguments: vectors, [0x00, 0xFF] as [UInt8])
    func emitsEveryByteAndNoOther(vector: Vector, fill: UInt8) {
        let bytes = written(44, over: fill) { vector.header.emit(into: &$0) }
        #expect(bytes == vector.bytes + Array(repeating: fill, count: 4))
    }

    @Test func refusesEveryShorterLength() {
        let bytes = Self.vectors[0].bytes
        for count in 0..<40 {
            if let _ = IPv6View(bytes.raw.extracting(0..<count)) { Issue.record("\(count) bytes taken") }
        }
    }

    @Test func aFlowLabelOfMoreThan20BitsDoesNotReachTheTrafficClass() {
        var header = IPv6Header(payloadLength: 0, nextHeader: 59, source: .unspecified, destination: .unspecified)
        header.flowLabel = 0xFFF0_0001
        let bytes = written(40, over: 0xFF) { [header] in header.emit(into: &$0) }
        #expect(bytes[..<4] == [0x60, 0x00, 0x00, 0x01])
    }

    // Every old class with every new one: the label and all other bytes stay.
    @Test func rewritesTheTrafficClassAlone() {
        for old in stride(from: 0, through: 255, by: 17) {
            for new in UInt8.min...UInt8.max {
                let before = hex("0000") + [UInt8(0x60 | old >> 4), UInt8(old << 4 & 0xF0 | 0xA)] + hex("bcde04d2113f")
                var after = before
                after.withMutableRaw { IPv6Header.rewrite(trafficClass: new, in: &$0, at: 2) }
                var expected = before
                expected[2] = 0x60 | new >> 4
                expected[3] = new << 4 | 0xA
                if after != expected { Issue.record("\(old) -> \(new): \(after)") }
            }
        }
    }
}
