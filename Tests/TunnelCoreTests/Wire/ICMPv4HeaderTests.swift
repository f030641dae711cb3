import Testing
@testable import TunnelCore

@Suite struct ICMPv4HeaderTests {
    // scapy: bytes(ICMP(type=3, code=4, nexthopmtu=1400, length=32, chksum=0x1234)): fragmentation needed, with RFC 4884's
    // length of the quote in words
    static let fragmentationNeeded = hex("03041234 00200578")
    // scapy: bytes(ICMP(type=8, id=0xbeef, seq=0x0102, chksum=0xa5a5)/b"abcd")
    static let echo = hex("0800a5a5 beef0102 61626364")

    @Test func decodesAnError() {
        let bytes = Self.fragmentationNeeded
        guard let view = ICMPv4View(bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(view.type == ICMPv4Type.destinationUnreachable && view.code == 4)
        #expect(view.checksum == 0x1234)
        #expect(view.rest == 0x0020_0578)
        #expect(view.quoteLength == 128)
        #expect(view.nextHopMTU == 1400)
        let bodyLength = view.body.byteCount
        #expect(bodyLength == 0)
    }

    @Test func decodesAnEcho() {
        let bytes = Self.echo
        guard let view = ICMPv4View(bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(view.type == ICMPv4Type.echoRequest && view.code == 0)
        #expect(view.rest == 0xBEEF_0102)
        let body = view.body
        let text = (0..<body.byteCount).map { body.byte(at: $0) }
        #expect(text == Array("abcd".utf8))
    }

    static func header(_ type: UInt8, _ code: UInt8, checksum: UInt16, rest: UInt32) -> ICMPv4Header {
        var header = ICMPv4Header(type: type, code: code)
        (header.checksum, header.rest) = (checksum, rest)
        return header
    }

    static let vectors: [(bytes: [UInt8], header: ICMPv4Header)] = [
        (fragmentationNeeded, header(3, 4, checksum: 0x1234, rest: 0x0020_0578)),
        (Array(echo[..<8]), header(8, 0, checksum: 0xA5A5, rest: 0xBEEF_0102)),
    ]

    @Test(arguments: vectors, [0x00, 0xFF] as [UInt8])
    func emitsEveryByteAndNoOther(vector: (bytes: [UInt8], header: ICMPv4Header), fill: UInt8) {
        #expect(written(12, over: fill) { vector.header.emit(into: &$0) } == vector.bytes + Array(repeating: fill, count: 4))
        if let view = ICMPv4View(vector.bytes.raw) { #expect(ICMPv4Header(view) == vector.header) }
    }

    @Test func refusesEveryShorterLength() {
        let bytes = Self.echo
        for count in 0..<8 {
            if let _ = ICMPv4View(bytes.raw.extracting(0..<count)) { Issue.record("\(count) bytes taken") }
        }
    }

    // IANA ICMP parameters
    @Test(
        arguments: [
            (ICMPv4Type.echoReply, 0), (ICMPv4Type.destinationUnreachable, 3), (ICMPv4Type.sourceQuench, 4),
            (ICMPv4Type.redirect, 5),
            (ICMPv4Type.echoRequest, 8), (ICMPv4Type.timeExceeded, 11), (ICMPv4Type.parameterProblem, 12),
        ] as [(UInt8, UInt8)])
    func types(type: UInt8, assigned: UInt8) { #expect(type == assigned) }
}
