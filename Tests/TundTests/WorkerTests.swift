import RingIO
import Testing
import TunnelCore

@testable import tund

/// The worker's loop on an engine of the test's own: who holds which slot, what goes again, what is counted.
@Suite struct WorkerTests {
    typealias P = WorkerPackets
    static let (EIO, EINVAL): (Int32, Int32) = (5, 22)

    /// Saw every packet arrive as it was on the wire.
    final class NothingMerged: MergeWitness {
        func beginBatch() -> Bool { false }
        func count(of packet: RawSpan) -> PacketCount { .unknown }
        func endBatch() {}
    }

    static func worker(
        slots: Int = 16, sendFrames: Int = 256, scratch: Int = 1 << 15, seed: UInt64 = 1, merges: Bool = true,
        softErrors: SoftErrors? = nil, witness: (any MergeWitness)? = NothingMerged(), cutsUDP: Bool = true,
        _ prepare: (inout FakeEngine) -> Void
    ) throws -> Worker<FakeEngine> {
        var engine = try FakeEngine(slots: slots, sendFrames: sendFrames, scratch: scratch, seed: seed)
        prepare(&engine)
        let mailbox = engine.mailbox
        return Worker(
            engine: engine, policy: P.policy, merges: merges, mailbox: mailbox, page: CounterPage(), softErrors: softErrors,
            witness: witness, cutsUDP: cutsUDP)
    }

    /// Runs to the end and checks what must hold in any case.
    static func run(_ worker: inout Worker<FakeEngine>, _ place: Comment? = nil) {
        let exit = worker.run()
        guard case .stopped = exit else {
            Issue.record("\(exit)")
            return
        }
        let (breaches, lent) = (worker.engine.breaches, worker.engine.lentSlots)
        #expect(breaches.isEmpty, place)
        #expect(lent == 0, place)
        let published = worker.page.read()
        for field in 0..<Counters.fieldCount { #expect(published[field: field] == worker.traffic.counters[field: field]) }
    }

    static func segment(_ index: Int, port: Int = 443, flags: UInt8 = 0x10) -> [UInt8] {
        P.packet(isTCP: true, port: port, sequence: 8 * index, flags: flags, payload: Array(repeating: UInt8(index), count: 8))
    }

    static func datagram(_ index: Int, port: Int = 53) -> [UInt8] {
        P.packet(isTCP: false, port: port, payload: Array(repeating: UInt8(index), count: 8))
    }

    // MARK: Refused merges

    /// All in one batch: a merged frame, one alone, another merged frame. `EINVAL` for what is merged.
    @Test func aTUNThatRefusesMergedPacketsGetsThemOneByOne() throws {
        let packets = [
            Self.segment(0), Self.segment(1), Self.segment(2), Self.segment(9, port: 444), Self.datagram(0), Self.datagram(1),
        ]
        var worker = try Self.worker {
            $0.underlayInput = packets.map(P.arrival)
            $0.burst = 1000
            $0.tun = { bytes, _ in P.isMerged(bytes) ? Self.EINVAL : 0 }
        }
        // Eight slots for the underlay: six packets may come in one turn or in several, by chance of the seed.
        Self.run(&worker)
        let accepted = worker.engine.accepted
        #expect(accepted.allSatisfy { !P.isMerged($0) })
        for port in [443, 444, 53] {
            let went = accepted.map { Array($0[10...]) }.filter { P.port(of: $0) == port }
            #expect(went == packets.filter { P.port(of: $0) == port })
        }
        // Each is one with a missing checksum, as it came.
        #expect(accepted.allSatisfy { $0[0] == 1 && P.native($0, 6) == 40 })
        let counters = worker.traffic.counters
        #expect(counters.downlinkPackets == 6 && counters.downlinkBytes == UInt64(packets.reduce(0) { $0 + $1.count }))
        #expect(counters.refusedMerges >= 1 && counters.refusedMerges == counters.mergedPackets)
        let refused = worker.engine.refused
        #expect(refused.isEmpty)
    }

    @Test func afterARefusalNoMoreAreMerged() throws {
        let packets = (0..<40).map { Self.segment($0) }
        var worker = try Self.worker {
            $0.underlayInput = packets.map(P.arrival)
            $0.burst = 8
            $0.tun = { bytes, _ in P.isMerged(bytes) ? Self.EINVAL : 0 }
        }
        Self.run(&worker)
        let accepted = worker.engine.accepted.map { Array($0[10...]) }
        #expect(accepted == packets)
        #expect(worker.traffic.counters.refusedMerges == 1 && worker.traffic.counters.mergedPackets == 1)
        #expect(worker.traffic.counters.tcpMergingPauses == 1 && worker.traffic.counters.udpMergingPauses == 0)
        let isOn = worker.merge.mergesTCP
        #expect(!isOn)
    }

    /// The TUN is down: EIO for a while, so it is not the merging. What is written then is lost, as it would be on any link, though
    /// its packets one by one might find the TUN up again a moment later.
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func aTUNThatIsDownIsNoReasonToStopMerging(seed: UInt64) throws {
        let packets = (0..<120).map { Self.segment($0) }
        var worker = try Self.worker(seed: seed) {
            $0.underlayInput = packets.map(P.arrival)
            $0.burst = 8
            $0.tun = { _, turn in turn % 20 < 10 ? Self.EIO : 0 }
        }
        Self.run(&worker)
        let (accepted, refused) = (worker.engine.accepted, worker.engine.refused)
        #expect(accepted.contains { P.isMerged($0) } && refused.contains { P.isMerged($0) })
        let payloads = { (frames: [[UInt8]]) in frames.flatMap { P.payloads(of: $0).payloads } }
        #expect(payloads(refused).count + payloads(accepted).count == packets.count)
        let (mergesTCP, mergesUDP) = (worker.merge.mergesTCP, worker.merge.mergesUDP)
        #expect(mergesTCP && mergesUDP)
        let counters = worker.traffic.counters
        #expect(counters.downlinkPackets == UInt64(payloads(accepted).count))
        #expect(counters.refusedMerges == 0 && counters.tcpMergingPauses == 0)
    }

    /// Kernels before 6.2 do not know VIRTIO_NET_HDR_GSO_UDP_L4 (`virtio_net_hdr_to_skb` answers EINVAL) but merged TCP they
    /// take, so a refused UDP frame says nothing about TCP.
    @Test func aTUNThatTakesMergedTCPKeepsGettingIt() throws {
        let packets = [Self.datagram(0), Self.datagram(1)] + (0..<60).map { Self.segment($0) }
        var worker = try Self.worker {
            $0.underlayInput = packets.map(P.arrival)
            $0.burst = 8
            $0.completions = 8
            $0.tun = { bytes, _ in bytes[1] == 5 ? Self.EINVAL : 0 }
        }
        Self.run(&worker)
        let merged = worker.engine.accepted.filter { P.isMerged($0) }.count
        let (mergesTCP, mergesUDP) = (worker.merge.mergesTCP, worker.merge.mergesUDP)
        #expect(!mergesUDP)
        #expect(mergesTCP)
        #expect(merged > 1)
    }

    // MARK: What the kernel merged

    /// Knows that the kernel merged datagrams of 8 bytes.
    final class FakeWitness: MergeWitness {
        func beginBatch() -> Bool { true }
        func endBatch() {}
        func count(of packet: RawSpan) -> PacketCount {
            unsafe packet.unsafeLoad(fromByteOffset: 26, as: UInt8.self) == 17 && packet.byteCount > 20 + 48 + 8
                ? .several(of: 8) : .one
        }
    }

    /// Datagrams of one flow; those of a row arrive in one packet, a segment before them and a datagram behind them.
    static let parts: [[[UInt8]]] = (0..<60).map { row in
        var parts = (0..<2 + row % 7).map { [UInt8](repeating: UInt8(row + $0 * 16), count: 8) }
        if row % 3 == 0 { parts.append([UInt8(row), 1, 2]) }
        return parts
    }

    /// - Parameter port: of the datagram behind them; theirs is 54.
    static func merged(
        port: Int = 53, seed: UInt64, merges: Bool = true, cutsUDP: Bool = true, _ tun: @escaping (_ bytes: [UInt8]) -> Int32
    ) throws -> Worker<FakeEngine> {
        try worker(slots: 32, seed: seed, merges: merges, witness: FakeWitness(), cutsUDP: cutsUDP) {
            $0.underlayInput = parts.enumerated().flatMap { row, parts in
                [segment(row), P.packet(isTCP: false, port: 54, payload: parts.flatMap(\.self)), datagram(row, port: port)]
                    .map(P.arrival)
            }
            $0.burst = 9
            $0.tun = { bytes, _ in tun(bytes) }
        }
    }

    /// As the TUN gets each alone.
    static func alone(_ packet: [UInt8]) -> [UInt8] {
        [1, 0, 0, 0, 0, 0] + P.native(40) + P.native(packet[6] == 6 ? 16 : 6) + packet
    }

    static func frames(_ frames: [[UInt8]], port: Int) -> [[UInt8]] { frames.filter { P.port(of: Array($0[10...])) == port } }

    /// That each packet arrived as it was, in order within its flow, and was counted once.
    static func checkEach(of worker: borrowing Worker<FakeEngine>, port: Int) {
        let (accepted, counters) = (worker.engine.accepted, worker.traffic.counters)
        let parts = parts.map { $0.map { P.packet(isTCP: false, port: 54, payload: $0) } }
        let (segments, datagrams) = ((0..<60).map { segment($0) }, (0..<60).map { datagram($0, port: port) })
        if port == 54 {
            #expect(frames(accepted, port: 54) == zip(parts, datagrams).flatMap { $0 + [$1] }.map(alone))
        } else {
            #expect(frames(accepted, port: 54) == parts.joined().map(alone))
            #expect(frames(accepted, port: port) == datagrams.map(alone))
        }
        #expect(frames(accepted, port: 443).flatMap { P.payloads(of: $0).payloads } == segments.map(P.payload))
        let all = parts.joined() + segments + datagrams
        #expect(counters.downlinkPackets == UInt64(all.count))
        #expect(counters.downlinkBytes == UInt64(all.reduce(0) { $0 + $1.count }))
        #expect(worker.engine.refused.isEmpty)
    }

    @Test(arguments: [1, 2, 3, 4, 5] as [UInt64], [true, false])
    func aTUNThatDoesNotCutGetsEachDatagram(seed: UInt64, merges: Bool) throws {
        var worker = try Self.merged(seed: seed, merges: merges) { $0[1] == 5 ? Self.EINVAL : 0 }
        Self.run(&worker)
        Self.checkEach(of: worker, port: 53)
        // Those of one batch: then it is known.
        #expect((1...16).contains(worker.traffic.counters.refusedMerges))
        let (mergesTCP, mergesUDP) = (worker.merge.mergesTCP, worker.merge.mergesUDP)
        #expect(mergesTCP == merges && !mergesUDP)
    }

    /// One that is known not to cut is not asked to, so that even within a flow the order stays.
    @Test(arguments: [1, 2, 3, 4, 5] as [UInt64], [true, false])
    func aTUNThatIsKnownNotToCut(seed: UInt64, merges: Bool) throws {
        var worker = try Self.merged(port: 54, seed: seed, merges: merges, cutsUDP: false) { $0[1] == 5 ? Self.EINVAL : 0 }
        Self.run(&worker)
        Self.checkEach(of: worker, port: 54)
        #expect(worker.traffic.counters.refusedMerges == 0)
        #expect(worker.traffic.counters.mergedPackets > 0 || !merges)
    }

    @Test func aTUNThatCutsGetsThemAsTheyAre() throws {
        var worker = try Self.merged(seed: 6) { _ in 0 }
        Self.run(&worker)
        let (accepted, counters) = (worker.engine.accepted, worker.traffic.counters)
        #expect(Self.frames(accepted, port: 54).map { P.payloads(of: $0).payloads } == Self.parts)
        #expect(counters.downlinkPackets == UInt64(120 + Self.parts.joined().count) && counters.refusedMerges == 0)
    }

    /// Each was tried once; none is counted, and nothing is learned from it.
    @Test(arguments: [true, false])
    func aTUNThatIsDownGetsNone(cutsUDP: Bool) throws {
        var worker = try Self.merged(seed: 7, cutsUDP: cutsUDP) { _ in Self.EIO }
        Self.run(&worker)
        let (accepted, refused, counters) = (worker.engine.accepted, worker.engine.refused, worker.traffic.counters)
        #expect(accepted.isEmpty)
        #expect(Self.frames(refused, port: 54).flatMap { P.payloads(of: $0).payloads } == Array(Self.parts.joined()))
        #expect(counters.downlinkPackets == 0 && counters.downlinkBytes == 0)
        let (mergesTCP, mergesUDP) = (worker.merge.mergesTCP, worker.merge.mergesUDP)
        #expect(mergesTCP && mergesUDP == cutsUDP)
    }

    // MARK: Uplink

    /// 40 segments and room for 5: eight batches at least, one after the other.
    @Test func moreThanASendBatch() throws {
        let reads = (0..<8).map { index in
            P.read(isTCP: index % 2 == 0, port: 100 + index, segmentSize: 8, payload: (0..<40).map { UInt8(index * 8 + $0 / 8) })
        }
        var worker = try Self.worker(slots: 16, sendFrames: 5) {
            $0.tunInput = reads
            $0.burst = 1000
        }
        Self.run(&worker)
        let sent = worker.engine.sent
        let expected = (0..<8).flatMap { index in
            (0..<5).map { part in [UInt8](repeating: UInt8(index * 8 + part), count: 8) }
        }
        #expect(sent.map { P.payload(of: $0.bytes) } == expected)
        #expect(sent.allSatisfy { $0.destination == 0xC633_6407 })
        let counters = worker.traffic.counters
        #expect(counters.splitPackets == 8 && counters.uplinkPackets == 40)
        #expect(counters.uplinkBytes == UInt64(sent.reduce(0) { $0 + $1.bytes.count }))
    }

    /// A TUN that always has more than one batch can carry: the list of reads that wait must not grow without end.
    @Test func aTUNThatNeverRunsDry() async {
        await #expect(processExitsWith: .success) {
            var worker = try WorkerTests.worker(slots: 16, sendFrames: 12) {
                $0.tunInput = (0..<200).map { index in
                    WorkerPackets.read(
                        isTCP: true, port: 1000 + index, segmentSize: 8, payload: [UInt8](repeating: UInt8(index), count: 40))
                }
                $0.burst = 16
                $0.completions = 8
            }
            WorkerTests.run(&worker)
            #expect(worker.engine.sent.count == 1000)
        }
    }

    // MARK: News

    /// The packets that come in the turn of the wake-up are the first that go by the new policy.
    @Test func aNewPolicyCountsFromTheTurnOn() throws {
        let peers: [UInt32] = [0xC633_6407, 0xC633_6408, 0xC633_6409]
        var worker = try Self.worker {
            $0.tunInput = (0..<60).map { P.read(isTCP: false, port: 100 + $0, segmentSize: nil, payload: [UInt8($0)]) }
            $0.burst = 1
            $0.completions = 8
            for (turn, peer) in [(20, peers[1]), (40, peers[2])] {
                $0.policies[turn] = TunnelPolicy(local: P.policy.local, peers: .remote(IPv4Address(rawValue: peer)))
            }
        }
        Self.run(&worker)
        let sent = worker.engine.sent
        #expect(sent.map { P.port(of: $0.bytes) } == Array(100..<160))
        #expect(sent.map(\.destination) == sent.map(\.destination).sorted())
        #expect(Set(sent.map(\.destination)) == Set(peers))
    }

    // MARK: What cannot be sent

    /// (source, ICMPv6 type, code, MTU, quote) of an answer.
    static func parts(_ reply: [UInt8]) -> (source: [UInt8], type: UInt8, code: UInt8, mtu: Int, quote: [UInt8]) {
        (Array(reply[18..<34]), reply[50], reply[51], P.number(reply, 56), Array(reply[58...]))
    }

    static let (EACCES, EINVAL_, EMSGSIZE, ENETUNREACH, EHOSTUNREACH): (Int32, Int32, Int32, Int32, Int32) = (
        13, 22, 90, 101, 113
    )

    /// One super-packet of three long segments, one of short ones, two packets: each source is told once, about its first packet.
    @Test func aPathThatIsTooNarrow() throws {
        let long = [UInt8](repeating: 1, count: 1300)
        var worker = try Self.worker {
            $0.tunInput = [
                P.read(isTCP: true, port: 1, segmentSize: 1300, payload: long + long + long),
                P.read(isTCP: true, port: 2, segmentSize: 1200, payload: long),
                P.read(isTCP: false, port: 3, segmentSize: nil, payload: long),
                P.read(isTCP: false, port: 4, segmentSize: nil, payload: [UInt8](repeating: 4, count: 1280 - 48)),
                P.read(isTCP: false, port: 5, segmentSize: nil, payload: [5]),
            ]
            $0.path = { $0.count > 1270 ? (90, 1290) : nil }
        }
        Self.run(&worker)
        let (replies, unsent, fragmented) = (worker.engine.replies, worker.engine.unsent, worker.engine.fragmented)
        #expect(unsent.map(P.port) == [1, 1, 1, 3])
        #expect(fragmented.map(P.port) == [4])
        #expect(replies.map { P.port(of: Self.parts($0).quote) } == [1, 3])
        for reply in replies {
            let (_, type, code, mtu, quote) = Self.parts(reply)
            #expect((type, code, mtu) == (2, 0, 1280))
            #expect(unsent.contains { Array($0.prefix(1232)) == quote })
        }
        let counters = worker.traffic.counters
        #expect(counters[.uplinkTooBig] == 4 && counters.packetTooBigs == 2 && counters.uplinkPackets == 3)
    }

    /// Where the kernel's note is lost, the source is told what passes on every path.
    @Test func aPathOfUnknownMTU() throws {
        var worker = try Self.worker {
            $0.tunInput = [1232, 1233].map {
                P.read(isTCP: false, port: $0, segmentSize: nil, payload: [UInt8](repeating: 1, count: $0))
            }
            $0.path = { _ in (90, 0) }
        }
        Self.run(&worker)
        let (replies, unsent, fragmented) = (worker.engine.replies, worker.engine.unsent, worker.engine.fragmented)
        #expect(unsent.map(P.port) == [1233] && fragmented.map(P.port) == [1232])
        #expect(replies.map { Self.parts($0).mtu } == [1280])
        #expect(worker.traffic.counters[.uplinkTooBig] == 1)
    }

    @Test(arguments: [EACCES, EINVAL_, ENETUNREACH, EHOSTUNREACH, 1, 105])
    func noRoute(code: Int32) throws {
        var worker = try Self.worker {
            $0.tunInput = [P.read(isTCP: false, port: 7, segmentSize: nil, payload: [1, 2, 3])]
            $0.path = { _ in (code, 0) }
        }
        Self.run(&worker)
        let (replies, unsent) = (worker.engine.replies, worker.engine.unsent)
        #expect(unsent.count == 1)
        if [1, 105].contains(code) {
            #expect(replies.isEmpty)
            return
        }
        let (source, type, code, _, quote) = Self.parts(try #require(replies.first))
        #expect(replies.count == 1 && type == 1 && code == 3 && quote == unsent[0])
        // Point to point there is only a link-local address, so it comes from where the packet was going.
        #expect(source == Array(quote[24..<40]))
        #expect(worker.traffic.counters.unreachables == 1)
    }

    @Test func softErrorsAreToldToTheNextSources() throws {
        let softErrors = SoftErrors()
        for _ in 0..<2 { softErrors.add(at: Clock.nanoseconds) }
        var worker = try Self.worker(softErrors: softErrors) {
            $0.tunInput = [
                P.read(isTCP: true, port: 1, segmentSize: 8, payload: [UInt8](repeating: 1, count: 80)),
                P.read(isTCP: false, port: 2, segmentSize: nil, payload: [2]),
                P.read(isTCP: false, port: 3, segmentSize: nil, payload: [3]),
            ]
        }
        Self.run(&worker)
        let (replies, sent) = (worker.engine.replies, worker.engine.sent)
        #expect(sent.count == 12 && replies.map { P.port(of: Self.parts($0).quote) } == [1, 2])
        #expect(replies.allSatisfy { Self.parts($0).type == 1 && Self.parts($0).code == 3 })
        #expect(softErrors.isEmpty)
    }

    @Test func softErrorsAreForgotten() {
        let second: UInt64 = 1_000_000_000
        let softErrors = SoftErrors()
        #expect(softErrors.isEmpty && !softErrors.take(at: 100 * second))
        softErrors.add(at: 100 * second)
        softErrors.add(at: 110 * second)
        #expect(!softErrors.isEmpty && softErrors.take(at: 140 * second - 1))
        #expect(!softErrors.take(at: 140 * second) && softErrors.isEmpty)
        softErrors.add(at: 150 * second)
        softErrors.add(at: 190 * second)
        #expect(softErrors.take(at: 190 * second) && !softErrors.take(at: 190 * second))
    }

    // MARK: Anything

    struct Weather: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let seed: UInt64
        var tun: @Sendable (_ bytes: [UInt8], _ turn: Int) -> Int32 = { _, _ in 0 }
        var failingSends: UInt64 = 0
        var completions: UInt64 = 3
        /// Whether packets of a flow reach the TUN in order.
        var keepsOrder = true
        var packets = 1500
    }

    static let weathers: [Weather] = [
        Weather(testDescription: "fair", seed: 401),
        Weather(testDescription: "fast", seed: 402, completions: 8),
        Weather(testDescription: "slow", seed: 403, completions: 1, packets: 600),
        Weather(testDescription: "failing sends", seed: 404, failingSends: 3),
        Weather(
            testDescription: "a TUN that is down at times", seed: 405, tun: { _, turn in turn % 50 < 20 ? 5 : 0 },
            keepsOrder: false),
        Weather(
            testDescription: "a TUN that refuses merged packets at times", seed: 406,
            tun: { bytes, turn in turn > 100 && WorkerPackets.isMerged(bytes) ? 22 : 0 }, keepsOrder: false),
        Weather(
            testDescription: "a TUN that refuses any frame at times", seed: 407,
            tun: { bytes, turn in (Int(bytes.last!) + turn) % 7 == 0 ? 5 : 0 }, keepsOrder: false),
        Weather(
            testDescription: "all of it", seed: 408, tun: { bytes, turn in (Int(bytes.last!) + turn) % 5 == 0 ? 22 : 0 },
            failingSends: 4,
            completions: 5, keepsOrder: false),
    ]

    /// Thousands of turns: every slot comes back, every packet that came in came out once, or was refused, or dropped.
    @Test(arguments: weathers)
    func slotsNeverLeak(weather: Weather) throws {
        var random = Randomness(state: weather.seed)
        var (reads, arrivals): ([[UInt8]], [[UInt8]]) = ([], [])
        var (toSend, toDeliver): ([Int: [UInt8]], [Int: [[UInt8]]]) = ([:], [:])
        var (refusedReads, refusedArrivals) = (0, 0)
        var sequences = [Int](repeating: 0, count: 8)
        while reads.count < weather.packets || arrivals.count < weather.packets {
            // Uplink: one flow a packet, so that its segments can be told.
            let port = reads.count + 1
            let payload = (0..<1 + random.below(60)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            switch random.below(10) {
            case 0:
                reads.append([[], [1, 2, 3], [UInt8](repeating: 0, count: 60)][random.below(3)])
                refusedReads += 1
            case 1, 2:
                reads.append(P.read(isTCP: random.below(2) == 0, port: port, segmentSize: nil, payload: payload))
                toSend[port] = payload
            default:
                reads.append(P.read(isTCP: random.below(2) == 0, port: port, segmentSize: 10, payload: payload))
                toSend[port] = payload
            }
            // Downlink: a few flows, in runs.
            let flow = random.below(sequences.count)
            for _ in 0..<1 + random.below(6) {
                if random.below(12) == 0 {
                    arrivals.append(
                        [P.arrival([0x40]), [1], [], P.arrival([UInt8](repeating: 0x50, count: 50))][random.below(4)])
                    refusedArrivals += 1
                    continue
                }
                let payload = (0..<(random.below(9) == 0 ? 3 : 8)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
                let isTCP = flow % 3 != 0
                arrivals.append(
                    P.arrival(
                        P.packet(
                            isTCP: isTCP, port: flow + 1, sequence: sequences[flow], flags: random.below(20) == 0 ? 0x18 : 0x10,
                            payload: payload)))
                sequences[flow] += payload.count
                toDeliver[flow + 1, default: []].append(payload)
            }
        }
        // Room for whatever sixteen slots hold, so each batch takes all that waits.
        var worker = try Self.worker(slots: 32, sendFrames: 200, seed: weather.seed) {
            $0.tunInput = reads
            $0.underlayInput = arrivals
            $0.burst = 9
            $0.completions = weather.completions
            $0.tun = weather.tun
            $0.failingSends = weather.failingSends
            $0.writesKeepOrder = weather.seed % 2 == 0
        }
        Self.run(&worker, "seed \(weather.seed)")

        var sent: [Int: [UInt8]] = [:]
        for frame in worker.engine.sent { sent[P.port(of: frame.bytes), default: []] += P.payload(of: frame.bytes) }
        #expect(sent == toSend)
        var (accepted, refused): ([Int: [[UInt8]]], [Int: [[UInt8]]]) = ([:], [:])
        for frame in worker.engine.accepted {
            let (port, payloads) = P.payloads(of: frame)
            accepted[port, default: []] += payloads
        }
        for frame in worker.engine.refused { refused[P.payloads(of: frame).port, default: []] += P.payloads(of: frame).payloads }
        for (port, payloads) in toDeliver {
            let (yes, no) = (accepted[port] ?? [], refused[port] ?? [])
            if weather.keepsOrder { #expect(yes == payloads) }
            let count = { (list: [[UInt8]]) in list.reduce(into: [[UInt8]: Int]()) { $0[$1, default: 0] += 1 } }
            #expect(count(yes + no) == count(payloads))
        }
        let counters = worker.traffic.counters
        #expect(counters.downlinkPackets == UInt64(accepted.values.reduce(0) { $0 + $1.count }))
        if weather.failingSends == 0 { #expect(counters.uplinkPackets == UInt64(worker.engine.sent.count)) }
        let drops = DropReason.allCases.reduce(0) { $0 + counters[$1] }
        #expect(drops == UInt64(refusedReads + refusedArrivals))
        let turns = worker.engine.turns
        #expect(turns > 300)
    }
}
