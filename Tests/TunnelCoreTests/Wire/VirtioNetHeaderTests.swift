import Testing
import TunnelCore

@Suite struct VirtioNetHeaderTests {
    struct Vector: Sendable {
        let bytes: [UInt8]
        let header: VirtioNetHeader
    }

    static func vector(_ bytes: String, _ set: (inout VirtioNetHeader) -> Void) -> Vector {
        var header = VirtioNetHeader()
        set(&header)
        // Written here as a little-endian machine has them.
        var bytes = hex(bytes)
        if UInt16(littleEndian: 1) != 1 { for offset in stride(from: 2, to: 10, by: 2) { bytes.swapAt(offset, offset + 1) } }
        return Vector(bytes: bytes, header: header)
    }

    // Python: struct.pack("=BBHHHH", flags, gso_type, hdr_len, gso_size, csum_start, csum_offset), the constants from
    // <linux/virtio_net.h>
    static let vectors: [Vector] = [
        vector("00000000000000000000") { _ in },
        // F_NEEDS_CSUM, GSO_TCPV6, 60, 1440, 40, 16
        vector("01043c00a00528001000") {
            $0.needsChecksum = true
            $0.segmentation = .tcp6
            $0.headerLength = 60
            $0.segmentSize = 1440
            $0.checksumStart = 40
            $0.checksumOffset = 16
        },
        // F_NEEDS_CSUM, GSO_TCPV6 | GSO_ECN, 0x0102, 0x0304, 0x0506, 0x0708
        vector("01840201040306050807") {
            $0.needsChecksum = true
            $0.segmentation = .tcp6
            $0.hasECN = true
            $0.headerLength = 0x0102
            $0.segmentSize = 0x0304
            $0.checksumStart = 0x0506
            $0.checksumOffset = 0x0708
        },
        // 0, GSO_UDP_L4, 48, 1200, 0, 0
        vector("00053000b00400000000") {
            $0.segmentation = .udp
            $0.headerLength = 48
            $0.segmentSize = 1200
        },
        // 0, GSO_TCPV4 | GSO_ECN, 0, 0, 0, 0
        vector("00810000000000000000") {
            $0.segmentation = .tcp4
            $0.hasECN = true
        },
    ]

    @Test(arguments: vectors)
    func decodes(vector: Vector) {
        guard let view = VirtioNetView(vector.bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(VirtioNetHeader(view) == vector.header)
        #expect(view.needsChecksum == vector.header.needsChecksum)
        #expect(view.segmentation == vector.header.segmentation)
        #expect(view.hasECN == vector.header.hasECN)
        #expect(view.headerLength == Int(vector.header.headerLength) && view.segmentSize == Int(vector.header.segmentSize))
        #expect(view.checksumStart == Int(vector.header.checksumStart))
        #expect(view.checksumOffset == Int(vector.header.checksumOffset))
        #expect(
            view.asksForNothing == (!vector.header.needsChecksum && !vector.header.hasECN && vector.header.segmentation == .none))
    }

    @Test(arguments: vectors, [0x00, 0xFF] as [UInt8])
    func emitsEveryByteAndNoOther(vector: Vector, fill: UInt8) {
        for offset in [0, 1, 4] {
            let bytes = written(16, over: fill) { vector.header.emit(into: &$0, at: offset) }
            let around = [UInt8](repeating: fill, count: 16)
            #expect(bytes == around[..<offset] + vector.bytes + around[(offset + 10)...])
        }
    }

    @Test func refusesEveryShorterLength() {
        let bytes = Self.vectors[1].bytes
        for count in 0..<10 {
            if let _ = VirtioNetView(bytes.raw.extracting(0..<count)) { Issue.record("\(count) bytes taken") }
        }
    }

    /// NEEDS_CSUM and the segmentation type ask for work; what the other fields say then or otherwise does not.
    @Test func whatAsksForWork() {
        for bit in 0..<80 {
            var bytes = [UInt8](repeating: 0, count: 12)
            bytes[bit / 8] = 1 << UInt8(bit % 8)
            guard let view = VirtioNetView(bytes.raw) else {
                Issue.record("refused")
                return
            }
            if view.asksForNothing != (bit != 0 && bit / 8 != 1) { Issue.record("bit \(bit)") }
        }
        // What follows is the packet's.
        let plain = hex("00000000000000000000 60ff")
        guard let view = VirtioNetView(plain.raw) else {
            Issue.record("refused")
            return
        }
        #expect(view.asksForNothing == true)
    }

    // Other flags (DATA_VALID 2, RSC_INFO 4) do not ask for a checksum.
    @Test(arguments: [(0, false), (1, true), (2, false), (3, true), (4, false), (0xFE, false)] as [(UInt8, Bool)])
    func onlyTheFirstFlagAsksForAChecksum(flags: UInt8, expected: Bool) {
        let bytes = [flags] + Array(repeating: 0, count: 9)
        guard let view = VirtioNetView(bytes.raw) else {
            Issue.record("refused")
            return
        }
        #expect(view.needsChecksum == expected)
    }
}
