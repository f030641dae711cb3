import Testing
@testable import TunnelCore

@Suite struct ICMPv6HeaderTests {
    static func header(_ type: UInt8, _ code: UInt8, checksum: UInt16, rest: UInt32) -> ICMPv6Header {
        var header = ICMPv6Header(type: type, code: code)
        (header.checksum, header.rest) = (checksum, rest)
        return header
    }

    struct Vector: Sendable {
        let bytes: [UInt8]
        let header: ICMPv6Header
        let isError: Bool
    }

    // scapy: bytes(ICMPv6PacketTooBig(mtu=1280, cksum=0x4321)), bytes(ICMPv6DestUnreach(code=3, length=16, cksum=0x9999)),
    // bytes(ICMPv6EchoRequest(id=0xbeef, seq=7, cksum=0x1357, data=b"hello")), ICMPv6EchoReply likewise
    static let vectors = [
        Vector(bytes: hex("02004321 00000500"), header: header(2, 0, checksum: 0x4321, rest: 1280), isError: true),
        Vector(bytes: hex("01039999 10000000"), header: header(1, 3, checksum: 0x9999, rest: 0x1000_0000), isError: true),
        Vector(
            bytes: hex("80001357 beef0007 68656c6c6f"), header: header(128, 0, checksum: 0x1357, rest: 0xBEEF_0007),
            isError: false),
        Vector(
            bytes: hex("81001357 beef0007 68656c6c6f"), header: header(129, 0, checksum: 0x1357, rest: 0xBEEF_0007),
            isError: false),
        // 127 is the last type for errors (RFC 4443 section 2.1)
        Vector(bytes: hex("7f000000 00000000"), header: header(127, 0, checksum: 0, rest: 0), isError: true),
    ]

    @Test(arguments: vectors)
    func decodes(vector: Vector) {
        guard let view = ICMPv6View(vector.bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(ICMPv6Header(view) == vector.header)
        #expect(view.type == vector.header.type && view.code == vector.header.code)
        #expect(view.checksum == vector.header.checksum && view.rest == vector.header.rest)
        #expect(view.isError == vector.isError)
        let body = view.body
        let text = (0..<body.byteCount).map { body.byte(at: $0) }
        #expect(text == Array(vector.bytes[8...]))
    }

    @Test(arguments: vectors, [0x00, 0xFF] as [UInt8])
    func emitsEveryByteAndNoOther(vector: Vector, fill: UInt8) {
        #expect(
            written(12, over: fill) { vector.header.emit(into: &$0) } == vector.bytes[..<8] + Array(repeating: fill, count: 4))
    }

    @Test func refusesEveryShorterLength() {
        let bytes = Self.vectors[2].bytes
        for count in 0..<8 {
            if let _ = ICMPv6View(bytes.raw.extracting(0..<count)) { Issue.record("\(count) bytes taken") }
        }
    }

    @Test func theChecksumStandsWhereTheConstantSays() {
        #expect(Self.vectors[0].bytes[ICMPv6Header.checksumOffset...].prefix(2) == [0x43, 0x21])
    }

    // IANA ICMPv6 parameters
    @Test(
        arguments: [
            (ICMPv6Type.destinationUnreachable, 1), (ICMPv6Type.packetTooBig, 2), (ICMPv6Type.timeExceeded, 3),
            (ICMPv6Type.parameterProblem, 4), (ICMPv6Type.echoRequest, 128), (ICMPv6Type.echoReply, 129),
        ] as [(UInt8, UInt8)])
    func types(type: UInt8, assigned: UInt8) { #expect(type == assigned) }
}
