import Synchronization
import Testing
import TunnelCore

@Suite struct MergedDatagramsTests {
    typealias V6 = UnfinishedWorkTests
    typealias V4 = InnerIPv4Tests

    /// Says what the test lets it say, and keeps what it was asked about.
    final class FakeWitness: MergeWitness {
        private let hasSeenMerged: Bool
        private let answer: @Sendable ([UInt8]) -> PacketCount
        private let log = Mutex<[[UInt8]]>([])
        /// Nothing for the beginning of a batch, a zero for its end, and the packets it was asked about.
        var heard: [[UInt8]] { log.withLock(\.self) }
        var asked: [[UInt8]] { heard.filter { $0.count > 1 } }

        init(hasSeenMerged: Bool = true, _ answer: @escaping @Sendable ([UInt8]) -> PacketCount) {
            self.hasSeenMerged = hasSeenMerged
            self.answer = answer
        }

        func beginBatch() -> Bool {
            log.withLock { $0.append([]) }
            return hasSeenMerged
        }

        func endBatch() { log.withLock { $0.append([0]) } }

        func count(of packet: RawSpan) -> PacketCount {
            let bytes = unsafe packet.withUnsafeBytes { unsafe Array($0) }
            log.withLock { $0.append(bytes) }
            return answer(bytes)
        }
    }

    /// From the peer to us, in the site.
    static func outer(_ inner: [UInt8], from source: String = "10.100.200.2", tos: UInt8 = 0, options: [UInt8] = []) -> [UInt8] {
        Packets.outer(source, "10.100.100.1", inner, tos: tos, options: options)
    }

    static func udp4(
        _ payload: [UInt8], identification: UInt16 = 1, options: [UInt8] = [], _ field: Transport.Field = .unfinished
    ) -> [UInt8] {
        V4.transport(
            V4.far, V4.near, isTCP: false, payload: payload, identification: identification, options: options, field)
    }

    // MARK: How many it is

    struct Row: CustomTestStringConvertible {
        let name: String
        let inner: [UInt8]
        /// nil: there is no witness.
        let says: PacketCount?
        /// nil: it is dropped.
        let header: VirtioNetHeader?
        var packets = 1
        /// Bytes of headers and payload in all of them.
        var length: Int
        var mtu = 1480
        var testDescription: String { name }

        init(
            _ name: String, _ inner: [UInt8], _ says: PacketCount?, _ header: VirtioNetHeader?, packets: Int = 1,
            length: Int? = nil, mtu: Int = 1480
        ) {
            (self.name, self.inner, self.says, self.header, self.packets) = (name, inner, says, header, packets)
            (self.length, self.mtu) = (length ?? inner.count, mtu)
        }
    }

    static func alone(at start: UInt16) -> VirtioNetHeader { V6.finish(at: start, 6) }

    static func cut(at start: UInt16, size: UInt16) -> VirtioNetHeader {
        var header = alone(at: start)
        (header.segmentation, header.segmentSize, header.headerLength) = (
            VirtioNetHeader.Segmentation(rawValue: 5), size, start + 8
        )
        return header
    }

    static func udp6(_ count: Int) -> [UInt8] { V6.udp(payload: Transport.pattern(count)) }
    static func udp4(_ count: Int) -> [UInt8] { udp4(Transport.pattern(count)) }
    static let behindOptions = V6.udp(next: 60, extensions: Packets.extensionHeader(next: 17), payload: Transport.pattern(3000))
    static let behindTwo = V6.udp(
        next: 0, extensions: Packets.extensionHeader(next: 60) + Packets.extensionHeader(next: 17), payload: Transport.pattern(99)
    )

    static let ipv6 = [
        Row("one", udp6(3), .one, alone(at: 40)),
        Row("one without payload", udp6(0), .one, alone(at: 40)),
        Row("one that is longer than the MTU", udp6(3000), .one, alone(at: 40)),
        Row("one behind an extension header that is longer than the MTU", behindOptions, .one, alone(at: 48)),
        Row("three", udp6(3000), .several(of: 1000), cut(at: 40, size: 1000), packets: 3, length: 3 * 48 + 3000),
        Row(
            "three, the last one shorter", udp6(2001), .several(of: 1000), cut(at: 40, size: 1000), packets: 3,
            length: 3 * 48 + 2001),
        Row("within the MTU", udp6(100), .several(of: 30), cut(at: 40, size: 30), packets: 4, length: 4 * 48 + 100),
        Row("a byte each", udp6(5), .several(of: 1), cut(at: 40, size: 1), packets: 5, length: 5 * 48 + 5),
        Row("a byte more than one", udp6(1000), .several(of: 999), cut(at: 40, size: 999), packets: 2, length: 2 * 48 + 1000),
        Row(
            "the longest behind IPv4 options", udp6(65427), .several(of: 1400), cut(at: 40, size: 1400), packets: 47,
            length: 47 * 48 + 65427),
        Row(
            "behind an extension header", behindOptions, .several(of: 1400), cut(at: 48, size: 1400), packets: 3,
            length: 3 * 56 + 3000),
        Row("behind two", behindTwo, .several(of: 50), cut(at: 56, size: 50), packets: 2, length: 2 * 64 + 99),
        Row("of no bytes", udp6(3000), .several(of: 0), nil),
        Row("of less", udp6(3000), .several(of: -1), nil),
        Row("of as many bytes as there are", udp6(3000), .several(of: 3000), nil),
        Row("of more", udp6(3000), .several(of: 3001), nil),
        Row("of more than 16 bits hold", udp6(3000), .several(of: 0x1_0064), nil),
        Row("of as many bytes as there are behind an extension header", behindOptions, .several(of: 3000), nil),
        Row("several without payload", udp6(0), .several(of: 1), nil),
        Row("unknown", udp6(3000), .unknown, nil),
        Row("unknown, within the MTU", udp6(3), .unknown, nil),
        Row("no witness", udp6(3), nil, alone(at: 40)),
        Row("no witness, as long as the MTU", udp6(1432), nil, alone(at: 40)),
        Row("no witness, longer than the MTU", udp6(1433), nil, nil),
        Row("no witness, longer than the MTU behind an extension header", behindOptions, nil, nil),
        Row("no witness, as long as a large MTU", udp6(3000), nil, alone(at: 40), mtu: 3048),
    ]

    static let ipv4 = [
        Row("one", udp4(3), .one, alone(at: 20)),
        Row("one that is longer than the MTU", udp4(3000), .one, alone(at: 20)),
        Row("three", udp4(3000), .several(of: 1000), cut(at: 20, size: 1000), packets: 3, length: 3 * 28 + 3000),
        Row("the last one shorter", udp4(2999), .several(of: 1000), cut(at: 20, size: 1000), packets: 3, length: 3 * 28 + 2999),
        Row(
            "behind options", udp4(Transport.pattern(100), options: Packets.fullOptions), .several(of: 60), cut(at: 60, size: 60),
            packets: 2, length: 2 * 68 + 100),
        Row("of no bytes", udp4(3000), .several(of: 0), nil),
        Row("of as many bytes as there are", udp4(3000), .several(of: 3000), nil),
        Row("unknown", udp4(3), .unknown, nil),
        Row("no witness, as long as the MTU", udp4(1452), nil, alone(at: 20)),
        Row("no witness, longer than the MTU", udp4(1453), nil, nil),
    ]

    @Test(arguments: ipv6)
    func theWitnessDecidesHowItGoesToTheTUN(row: Row) {
        check(row, Self.outer(row.inner), Policies.site)
        check(row, Self.outer(row.inner, options: Packets.fullOptions), Policies.site)
    }

    @Test(arguments: ipv4, [Policies.any, Policies.ipip])
    func andSoWithIPv4(row: Row, policy: TunnelPolicy) { check(row, V4.down(row.inner), policy) }

    private func check(_ row: Row, _ packet: [UInt8], _ policy: TunnelPolicy) {
        var policy = policy
        policy.mtu = row.mtu
        var bench = DownlinkBench([packet])
        let frames = bench.run(policy, witness: row.says.map { says in FakeWitness { _ in says } })
        let (dropped, slices, untouched) = (bench.room.droppedSlices, bench.slices, bench.gapsAreUntouched)
        #expect(untouched)
        #expect(bench.counters[.downlinkUnfinishedOversized] == (row.header == nil ? 1 : 0))
        guard let header = row.header else {
            #expect(frames.isEmpty && dropped == slices)
            return
        }
        #expect(frames.map(\.bytes) == [V4.read(header, row.inner)] && dropped.isEmpty)
        #expect(frames.map(\.packetCount) == [row.packets])
        #expect(frames.map(\.innerLength) == [row.length])
    }

    // MARK: What it is asked about

    struct Question: CustomTestStringConvertible {
        let name: String
        let packet: [UInt8]
        var policy = Policies.site
        var testDescription: String { name }

        init(_ name: String, _ packet: [UInt8], _ policy: TunnelPolicy = Policies.site) {
            (self.name, self.packet, self.policy) = (name, packet, policy)
        }
    }

    static let (short, long) = (Transport.pattern(9), Transport.pattern(3000))

    static let questions = [
        Question("a datagram", outer(udp6(9))),
        Question("a long one", outer(udp6(3000))),
        Question("behind an extension header", outer(behindOptions)),
        Question("behind IPv4 options", outer(udp6(9), options: Packets.fullOptions)),
        Question("with padding", outer(udp6(9) + [1, 2, 3])),
        // The mark inside would change.
        Question("marked", outer(V6.udp(payload: short).marked(2), tos: 3)),
        Question("inside IPv4", V4.down(udp4(9)), Policies.any),
        Question("inside IPv4, marked", V4.down(udp4(3000).marked(2), tos: 3), Policies.ipip),

        Question("a finished datagram", outer(V6.udp(payload: short, .finished))),
        Question("a finished datagram, long", outer(V6.udp(payload: long, .finished))),
        Question("a datagram without checksum", outer(V6.udp(payload: long, .value(0)))),
        Question("TCP, unfinished", outer(V6.tcp(payload: short))),
        Question("TCP, merged", outer(V6.tcp(payload: long))),
        Question("ICMPv6", outer(Packets.inner(V6.peer, V6.us, next: 58, payload: hex("800058a200010002")))),
        Question(
            "a fragment",
            outer(V6.udp(next: 44, extensions: Packets.fragmentHeader(next: 17, more: true), payload: short))),
        Question("no transport", outer(Packets.inner(V6.peer, V6.us))),
        Question("refused: a spoofed source", outer(udp6(9), from: "10.9.9.9")),
        Question("refused: a mark that cannot be", outer(udp6(9), tos: 3)),
        Question("refused: truncated", outer(Array(udp6(9).dropLast()))),
        Question("inside IPv4, finished", V4.down(udp4(short, .finished)), Policies.any),
        Question(
            "inside IPv4, TCP", V4.down(V4.transport(V4.far, V4.near, payload: long, .unfinished)), Policies.any),
        Question("inside IPv4, refused", V4.down(udp4(9), from: "198.51.100.8"), Policies.any),
    ]

    /// Whatever it looks like, it may have been merged; and what is refused is of no use to any other packet.
    @Test(arguments: questions)
    func itIsAskedAboutEveryPacket(row: Question) {
        let witness = FakeWitness { _ in .one }
        var bench = DownlinkBench([row.packet])
        _ = bench.run(row.policy, witness: witness)
        #expect(witness.asked == [row.packet])
    }

    @Test func whereNothingWasMergedItIsAskedNothing() {
        let witness = FakeWitness(hasSeenMerged: false) { _ in .unknown }
        let packets = [Self.udp6(3000), V6.tcp(payload: Self.short), V6.udp(payload: Self.short, .finished)]
        var bench = DownlinkBench(packets.map { Self.outer($0) }, merges: false)
        let frames = bench.run(witness: witness)
        #expect(witness.heard == [[]])
        // It does know, so each is one, and an unfinished datagram of any length.
        #expect(frames.map(\.packet) == packets)
    }

    @Test func itIsToldWhereABatchBeginsAndEnds() {
        let (first, second) = (Self.outer(Self.udp6(9)), Self.outer(Self.udp6(10)))
        let witness = FakeWitness { _ in .one }
        for packets in [[first, second], [second]] {
            var bench = DownlinkBench(packets)
            _ = bench.run(witness: witness)
        }
        #expect(witness.heard == [[], first, second, [0], [], second, [0]])
    }

    @Test func inABatchItIsAskedAboutEachOnce() {
        let rows = Self.questions.filter { $0.packet[9] == 41 }
        let witness = FakeWitness { $0.count > 1500 ? .several(of: 1400) : .one }
        var bench = DownlinkBench(rows.map(\.packet))
        _ = bench.run(witness: witness)
        #expect(witness.asked == rows.map(\.packet))
    }

    // MARK: Among others

    /// One flow of equal datagrams, of which the kernel merged four, and another flow beside it.
    @Test(arguments: [true, false])
    func whatIsToBeCutIsMergedNoFurther(merges: Bool) throws {
        func datagrams(_ range: Range<Int>, port: UInt16 = 443) -> [[UInt8]] {
            range.map {
                Transport(isTCP: false, sourcePort: port, payload: Transport.pattern(100, from: 100 * $0)).bytes
            }
        }
        let merged = Transport(isTCP: false, sourcePort: 443, payload: Transport.pattern(400, from: 200), checksum: .unfinished)
        let arriving =
            datagrams(0..<2) + datagrams(0..<1, port: 444) + [merged.bytes] + datagrams(1..<2, port: 444) + datagrams(6..<8)
        let witness = FakeWitness { $0.count > 400 ? .several(of: 100) : .one }
        var bench = DownlinkBench(arriving.map { Self.outer($0) }, merges: merges)
        let frames = bench.run(witness: witness)
        #expect(frames.map(\.packetCount) == (merges ? [2, 2, 4, 2] : [1, 1, 1, 4, 1, 1, 1]))
        let leaving = try frames.flatMap { try #require(KernelReference.packets(of: $0.bytes)) }
        for port in [443, 444] {
            let went = leaving.filter { KernelReference.number($0, 40) == port }
            #expect(went == datagrams(0..<(port == 443 ? 8 : 2), port: UInt16(port)))
        }
        #expect(bench.counters.mergedPackets == (merges ? 3 : 0))
    }
}

extension [UInt8] {
    /// An IPv6 or IPv4 packet with this traffic class or type of service.
    fileprivate func marked(_ mark: UInt8) -> [UInt8] {
        var bytes = self
        if bytes[0] >> 4 == 6 {
            (bytes[0], bytes[1]) = (0x60 | mark >> 4, bytes[1] & 15 | mark << 4)
        } else {
            let end = Int(bytes[0] & 15) * 4
            (bytes[1], bytes[10], bytes[11]) = (mark, 0, 0)
            bytes.replaceSubrange(10..<12, with: Packets.bytes(~NaiveChecksum.sum(bytes[..<end])))
        }
        return bytes
    }
}

/// Merged datagrams are taken apart where they lie.
@Suite struct DatagramCutterTests {
    typealias V6 = UnfinishedWorkTests

    /// What stands before the payload.
    enum Headers: CaseIterable, CustomTestStringConvertible {
        case ipv6, hopByHop, twoExtensions, ipv4, ipv4Option, ipv4Options

        var testDescription: String { "\(self)" }
        /// Where the UDP header begins.
        var start: Int {
            switch self {
            case .ipv6: 40
            case .hopByHop: 48
            case .twoExtensions: 56
            case .ipv4: 20
            case .ipv4Option: 24
            case .ipv4Options: 60
            }
        }

        func packet(_ payload: [UInt8], identification: UInt16, finished: Bool) -> [UInt8] {
            let extensions: [UInt8]
            switch self {
            case .ipv4, .ipv4Option, .ipv4Options:
                return InnerIPv4Tests.transport(
                    InnerIPv4Tests.far, InnerIPv4Tests.near, isTCP: false, payload: payload, identification: identification,
                    options: Array(Packets.fullOptions.prefix(start - 20)), finished ? .finished : .unfinished)
            case .ipv6: extensions = []
            case .hopByHop: extensions = Packets.extensionHeader(next: 17)
            case .twoExtensions: extensions = Packets.extensionHeader(next: 60) + Packets.extensionHeader(next: 17)
            }
            return V6.udp(
                next: extensions.isEmpty ? 17 : 0, extensions: extensions, payload: payload, finished ? .finished : .unfinished)
        }
    }

    /// What the kernel does with NEEDS_CSUM.
    static func finished(_ frame: [UInt8]) -> [UInt8] {
        var packet = Array(frame[10...])
        let start = KernelReference.native(frame, 6)
        let field = start + KernelReference.native(frame, 8)
        packet.replaceSubrange(field..<field + 2, with: Packets.bytes(~NaiveChecksum.sum(packet[start...])))
        return packet
    }

    /// Payload and segment size.
    static func sizes(_ random: inout SeededGenerator) -> [(Int, Int)] {
        let fixed = [
            (0, 1), (1, 1), (2, 1), (70, 1), (70, 7), (71, 7), (300, 47), (300, 48), (300, 49), (99, 100), (100, 100), (101, 100),
            (2800, 1400), (2799, 1400), (2801, 1400), (65000, 1472), (65000, 65000),
        ]
        return fixed
            + (0..<60).map { _ in
                let size = Int.random(in: 1...[4, 60, 1500].randomElement(using: &random)!, using: &random)
                return (Int.random(in: 0...min(30 * size, 9000), using: &random), size)
            }
    }

    @Test(arguments: Headers.allCases)
    func whatComesOutIsWhatWasMerged(headers: Headers) throws {
        var random = SeededGenerator(seed: 71)
        for (count, size) in Self.sizes(&random) {
            let payload = random.bytes(count)
            let identification = [1, 0xFFFE, UInt16.random(in: 0...0xFFFF, using: &random)].randomElement(using: &random)!
            let virtio = KernelReference.virtio(type: 5, headers: headers.start + 8, size: size, start: headers.start, offset: 6)
            let frame = virtio + headers.packet(payload, identification: identification, finished: false)
            let gap = [UInt8](repeating: 0xA5, count: Int.random(in: 0...80, using: &random))
            var memory = gap + frame + gap
            let slice = Slice(offset: gap.count, length: frame.count)

            var (out, leaves): ([[UInt8]], Bool) = ([], false)
            let made = DatagramCutter(slice, in: memory.raw)
            var cutter = try #require(made)
            while out.count <= max(count, 1), let next = memory.withMutableRaw({ cutter.next(in: &$0) }) {
                if !(slice.range.lowerBound <= next.range.lowerBound && next.range.upperBound <= slice.range.upperBound) {
                    leaves = true
                    break
                }
                out.append(Array(memory[next.range]))
            }

            var (unfinished, finished): ([[UInt8]], [[UInt8]]) = ([], [])
            for start in stride(from: 0, to: max(count, 1), by: size) {
                let part = Array(payload[start..<min(start + size, count)])
                let number = identification &+ UInt16(finished.count)
                unfinished.append(headers.packet(part, identification: number, finished: false))
                finished.append(headers.packet(part, identification: number, finished: true))
            }
            let place: Comment = "\(count) bytes, \(size) each"
            #expect(!leaves, place)
            #expect(out.map { Array($0[10...]) } == unfinished, place)
            let alone = KernelReference.virtio(start: headers.start, offset: 6)
            try #require(out.allSatisfy { $0.starts(with: alone) }, place)
            #expect(out.map(Self.finished) == finished, place)
            #expect(memory[..<gap.count] == gap[...] && memory[slice.range.upperBound...].elementsEqual(gap), place)
        }
    }

    static let refused: [(String, [UInt8])] = {
        let udp = V6.udp(payload: Transport.pattern(100))
        func virtio(type: Int = 5, headers: Int = 48, size: Int = 50, start: Int = 40) -> [UInt8] {
            KernelReference.virtio(type: UInt8(type), headers: headers, size: size, start: start, offset: 6)
        }
        return [
            ("nothing", []),
            ("9 bytes", Array(virtio()[..<9])),
            ("a virtio-net header alone", virtio()),
            ("the UDP header cut off", virtio() + udp[..<47]),
            ("a datagram of its own", virtio(type: 0) + udp),
            ("TCP over IPv6", virtio(type: 4) + udp),
            ("TCP over IPv4", virtio(type: 1) + udp),
            ("segments of no bytes", virtio(size: 0) + udp),
            ("headers that end before UDP's", virtio(headers: 47) + udp),
            ("headers that end behind UDP's", virtio(headers: 49) + udp),
            ("headers longer than the packet", virtio(headers: 200, start: 192) + udp),
        ]
    }()

    @Test(arguments: refused)
    func othersAreNotTakenApart(name: String, frame: [UInt8]) {
        // What is behind the frame would do.
        let memory = frame + V6.udp(payload: Transport.pattern(100))
        let isCutter = DatagramCutter(Slice(offset: 0, length: frame.count), in: memory.raw) != nil
        #expect(!isCutter)
    }
}
