import Testing
import TunnelCore

@Suite struct TCPHeaderTests {
    struct Vector: Sendable {
        let bytes: [UInt8]
        let header: TCPHeader
    }

    static func vector(_ bytes: String, _ source: UInt16, _ destination: UInt16, _ set: (inout TCPHeader) -> Void) -> Vector {
        var header = TCPHeader(sourcePort: source, destinationPort: destination)
        set(&header)
        return Vector(bytes: hex(bytes), header: header)
    }

    // scapy: bytes(TCP(…)); 4660 is 0x1234.
    static let vectors: [Vector] = [
        // seq=0x01020304, ack=0xa0b0c0d0, flags="SAC", window=0xfaf0, chksum=0xbeef, urgptr=0x0102
        vector("123401bb 01020304 a0b0c0d0 5092faf0 beef0102", 4660, 443) {
            $0.sequenceNumber = 0x0102_0304
            $0.acknowledgmentNumber = 0xA0B0_C0D0
            $0.flags = [.syn, .ack, .cwr]
            $0.window = 0xFAF0
            $0.checksum = 0xBEEF
            $0.urgentPointer = 0x0102
        },
        // seq=3, ack=4, flags="FSRPAUEC", window=5, chksum=6, urgptr=7
        vector("00010002 00000003 00000004 50ff0005 00060007", 1, 2) {
            $0.sequenceNumber = 3
            $0.acknowledgmentNumber = 4
            $0.flags = [.fin, .syn, .rst, .psh, .ack, .urg, .ece, .cwr]
            $0.window = 5
            $0.checksum = 6
            $0.urgentPointer = 7
        },
    ]

    // seq=1, flags="S", window=64240, chksum=0x1111,
    // options=[("MSS", 1440), ("SAckOK", b""), ("Timestamp", (0x11223344, 0)), ("NOP", None), ("WScale", 7)]
    static let withOptions = vector(
        "c3500050 00000001 00000000 a002faf0 11110000 020405a0 0402080a 11223344 00000000 01030307", 50000, 80
    ) {
        $0.sequenceNumber = 1
        $0.headerLength = 40
        $0.flags = .syn
        $0.window = 64240
        $0.checksum = 0x1111
    }

    @Test(arguments: vectors + [withOptions])
    func decodes(vector: Vector) {
        guard let view = TCPView(vector.bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(TCPHeader(view) == vector.header)
        #expect(view.sourcePort == vector.header.sourcePort && view.destinationPort == vector.header.destinationPort)
        #expect(view.sequenceNumber == vector.header.sequenceNumber)
        #expect(view.acknowledgmentNumber == vector.header.acknowledgmentNumber)
        #expect(view.headerLength == vector.bytes.count)
        #expect(view.flags == vector.header.flags)
        #expect(view.window == vector.header.window && view.checksum == vector.header.checksum)
        #expect(view.urgentPointer == vector.header.urgentPointer)
        let options = view.options
        #expect(options.byteCount == vector.bytes.count - 20)
    }

    @Test(arguments: vectors + [withOptions], [0x00, 0xFF] as [UInt8])
    func emitsEveryFixedByteAndNoOther(vector: Vector, fill: UInt8) {
        let bytes = written(24, over: fill) { vector.header.emit(into: &$0) }
        #expect(bytes == vector.bytes[..<20] + Array(repeating: fill, count: 4))
    }

    @Test func refusesEveryShorterLength() {
        for bytes in [Self.vectors[0].bytes, Self.withOptions.bytes] {
            for count in 0..<bytes.count {
                if let _ = TCPView(bytes.raw.extracting(0..<count)) { Issue.record("\(count) of \(bytes.count) bytes taken") }
            }
        }
    }

    @Test(arguments: 0..<16)
    func takesDataOffsetsFrom5WordsToTheEnd(words: Int) {
        for count in [20, 39, 40, 60, 61] {
            var bytes = [UInt8](repeating: 0xEE, count: count)
            bytes[12] = UInt8(words << 4 | 0xF)
            let isTaken: Bool = if let _ = TCPView(bytes.raw) { true } else { false }
            #expect(isTaken == (words >= 5 && words * 4 <= count))
        }
    }

    // The letters of scapy's flags, in the order of their bits.
    @Test(arguments: zip("FSRPAUEC", [TCPFlags.fin, .syn, .rst, .psh, .ack, .urg, .ece, .cwr]))
    func flagBits(letter: Character, flag: TCPFlags) {
        let position = Array("FSRPAUEC").firstIndex(of: letter)!
        #expect(flag.rawValue == 1 << UInt8(position))
    }

    @Test func theChecksumStandsWhereTheConstantSays() {
        #expect(Self.vectors[0].bytes[TCPHeader.checksumOffset...].prefix(2) == [0xBE, 0xEF])
    }
}
