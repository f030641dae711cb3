import Testing
import TunnelCore

@Suite struct UDPHeaderTests {
    // scapy: bytes(UDP(sport=53, dport=0xc000, len=0x1234, chksum=0xabcd))
    static let bytes = hex("0035c000 1234abcd")
    static var header: UDPHeader {
        var header = UDPHeader(sourcePort: 53, destinationPort: 0xC000, length: 0x1234)
        header.checksum = 0xABCD
        return header
    }

    @Test func decodes() {
        let bytes = Self.bytes
        guard let view = UDPView(bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(UDPHeader(view) == Self.header)
        #expect(view.sourcePort == 53 && view.destinationPort == 0xC000)
        #expect(view.length == 0x1234)
        #expect(view.checksum == 0xABCD)
    }

    @Test(arguments: [0x00, 0xFF] as [UInt8])
    func emitsEveryByteAndNoOther(fill: UInt8) {
        #expect(written(12, over: fill) { Self.header.emit(into: &$0) } == Self.bytes + Array(repeating: fill, count: 4))
    }

    @Test func refusesEveryShorterLength() {
        let bytes = Self.bytes
        for count in 0..<8 {
            if let _ = UDPView(bytes.raw.extracting(0..<count)) { Issue.record("\(count) bytes taken") }
        }
    }

    @Test func theChecksumStandsWhereTheConstantSays() {
        #expect(Self.bytes[UDPHeader.checksumOffset...] == [0xAB, 0xCD])
    }
}
