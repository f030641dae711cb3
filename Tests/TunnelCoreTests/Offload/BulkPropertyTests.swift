import Testing
import TunnelCore

/// What holds for any packets: nothing is lost, doubled, changed or overtaken within its flow.
@Suite struct BulkPropertyTests {
    static let (peer, us) = ("2001:db8:64c8:200::2", "2001:db8:6464:100::1")

    /// One packet on its way down.
    struct Arrival {
        let wire: [UInt8]
        /// What must reach the stack: the packet with its checksum as it came, or finished.
        let packet: [UInt8]
        /// -1 for what may be of any flow.
        let flow: Int
    }

    /// A sender that does everything a sender may do, and some things that none should.
    struct Flow {
        var number: Int
        var next: Transport
        /// The usual payload length.
        var size: Int

        init(_ number: Int, _ random: inout SeededGenerator) {
            self.number = number
            next = Transport()
            next.isTCP = number % 3 != 2
            next.sourcePort = UInt16(1 + number)
            next.destination = number % 2 == 0 ? us : "2001:db8:6464:1ff::7"
            next.sequence = [0, 0xFFFF_FF80, 77].randomElement(using: &random)!
            next.options = next.isTCP && number % 4 == 1 ? hex("0101080a 00000001 00000002") : []
            next.trafficClass = number % 5 == 1 ? 0x02 : 0
            size = [1, 7, 8, 20].randomElement(using: &random)!
        }

        mutating func send(_ random: inout SeededGenerator) -> Transport {
            var packet = next
            var length = size
            switch random.next() % 40 {
            case 0: length = 0
            case 1, 2: length = Int.random(in: 0...size, using: &random)
            case 3: length = size + 1
            case 4: packet.flags |= 0x08
            case 5: packet.flags |= 0x01
            case 6: packet.flags |= 0x80
            case 7: packet.flags |= [0x02, 0x04, 0x40].randomElement(using: &random)!
            case 8: packet.flags |= 0x20
            case 9: packet.checksum = .wrong
            case 10, 11, 12: packet.checksum = .unfinished
            case 13: next.acknowledgment &+= 1
            case 14: next.window &+= 1
            case 15: if next.isTCP && !next.options.isEmpty { next.options[7] &+= 1 }
            case 16: next.sequence &+= UInt32(size)  // one that was lost
            case 17: packet.sequence &-= UInt32(size)  // one that comes again
            case 18: packet.hopLimit -= 1
            case 19: packet.flowLabel = 9
            case 20: if !packet.isTCP { packet.checksum = .value(0) }
            case 21: if !packet.isTCP { packet.length = 8 + length + 1 }
            case 22: packet.trafficClass ^= 0x20
            default: break
            }
            packet.payload = random.bytes(length)
            next.sequence &+= UInt32(length)
            return packet
        }
    }

    static func arrivals(_ random: inout SeededGenerator, count: Int) -> [Arrival] {
        var flows = (0..<Int.random(in: 1...6, using: &random)).map { Flow($0, &random) }
        var arrivals: [Arrival] = []
        while arrivals.count < count {
            let pick = Int.random(in: 0..<flows.count, using: &random)
            // Runs of one flow, as they come from a wire.
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                let transport = flows[pick].send(&random)
                let bytes = transport.bytes
                var packet = bytes
                if case .unfinished = transport.checksum { packet = KernelReference.finished(bytes) }
                var flow = flows[pick].number
                var inner = bytes
                if random.next() % 30 == 0 {
                    // Behind another header nobody looks for it.
                    inner = Packets.inner(
                        transport.source, transport.destination, next: 60,
                        payload: Packets.extensionHeader(next: bytes[6]) + transport.with { $0.checksum = .wrong }.bytes[40...])
                    packet = inner
                    flow = -1
                }
                arrivals.append(
                    Arrival(
                        wire: ReceiveMergeTests.outer(inner, options: random.next() % 9 == 0 ? Packets.fullOptions : []),
                        packet: packet,
                        flow: flow))
            }
        }
        // Neighbours change places now and then.
        for index in 1..<arrivals.count where random.next() % 12 == 0 { arrivals.swapAt(index - 1, index) }
        return arrivals
    }

    /// The flow of a packet that came out, by what the senders differ in.
    static func flow(of packet: [UInt8]) -> Int {
        packet[6] == 60 ? -1 : KernelReference.number(packet, 40) - 1
    }

    @Test(arguments: [301, 302, 303, 304] as [UInt64])
    func whatIsMergedComesApartAgain(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var (merged, alone) = (0, 0)
        for round in 0..<60 {
            let arrivals = Self.arrivals(&random, count: Int.random(in: 1...80, using: &random))
            var bench = DownlinkBench(arrivals.map(\.wire))
            let frames = bench.run()
            let parts = frames.map { frame in frame.packet[6] == 60 ? [frame.packet] : KernelReference.packets(of: frame.bytes) }
            let packets = parts.flatMap { $0 ?? [] }
            let place: Comment = "seed \(seed), round \(round)"
            #expect(!parts.contains { $0 == nil }, place)
            // Each flow by itself, with what may belong to any: the same packets in the same order.
            for flow in Set(arrivals.map(\.flow)) {
                let came = arrivals.filter { $0.flow == flow || $0.flow == -1 }.map(\.packet)
                let went = packets.filter { [flow, -1].contains(Self.flow(of: $0)) }
                if went != came { Issue.record("flow \(flow) is another, \(place)") }
            }
            #expect(packets.count == arrivals.count, place)
            #expect(zip(frames, parts).allSatisfy { $0.packetCount == $1?.count }, place)
            #expect(frames.reduce(0) { $0 + $1.innerLength } == arrivals.reduce(0) { $0 + $1.packet.count }, place)
            #expect(bench.counters.mergedPackets == UInt64(frames.filter { $0.packetCount > 1 }.count), place)
            let (gapsAreUntouched, dropped) = (bench.gapsAreUntouched, bench.room.dropped.count)
            #expect(gapsAreUntouched && dropped == 0, place)
            merged += frames.filter { $0.packetCount > 1 }.count
            alone += frames.filter { $0.packetCount == 1 }.count

            // A TUN that refuses them all gets the same packets.
            for index in frames.indices where frames[index].packetCount > 1 {
                let single = bench.unmerge(index).map { KernelReference.packets(of: $0.bytes) }
                if single != parts[index]?.map({ [$0] }) { Issue.record("frame \(index) comes apart wrong, \(place)") }
            }
        }
        #expect(merged > 200 && alone > 200, "\(merged), \(alone)")
    }

    /// Slots are named by the slices: no byte of a delivered frame belongs to a packet of another frame.
    @Test func everySlotBelongsToOneFrame() {
        var random = SeededGenerator(seed: 311)
        for _ in 0..<40 {
            let arrivals = Self.arrivals(&random, count: 60)
            var bench = DownlinkBench(arrivals.map(\.wire))
            let frames = bench.run()
            var owners: [Int: Int] = [:]
            for (number, frame) in frames.enumerated() {
                var slots: Set<Int> = []
                for slice in frame.slices {
                    let slot = bench.slices.firstIndex { $0.range.contains(Int(slice.offset)) }
                    guard let slot else {
                        Issue.record("\(slice) is in no slot")
                        return
                    }
                    #expect(slots.insert(slot).inserted)
                    #expect(bench.slices[slot].range.upperBound >= slice.range.upperBound)
                    if let other = owners.updateValue(number, forKey: slot) {
                        Issue.record("frames \(other) and \(number) share")
                    }
                }
                #expect(slots.count == frame.packetCount)
            }
            #expect(owners.count == arrivals.count)
        }
    }

    /// Many flows in few buckets: those that meet close each other and lose nothing.
    @Test func flowsThatMeetInOneBucket() {
        var (met, apart) = (0, 0)
        for other in 0..<200 {
            let packets = (0..<4).flatMap { index in
                [ReceiveMergeTests.tcp(index), ReceiveMergeTests.tcp(index) { $0.sourcePort = UInt16(1000 + other) }]
            }
            var bench = DownlinkBench(packets.map { ReceiveMergeTests.outer($0.bytes) })
            let frames = bench.run()
            if frames.map(\.packetCount) == [4, 4] { apart += 1 }
            if frames.map(\.packetCount) == [1, 1, 1, 1, 1, 1, 1, 1] { met += 1 }
            let went = frames.flatMap { KernelReference.packets(of: $0.bytes) ?? [] }
            for port in [443, 1000 + other] {
                #expect(
                    went.filter { KernelReference.number($0, 40) == port }
                        == packets.map(\.bytes).filter { KernelReference.number($0, 40) == port })
            }
            #expect(went.count == 8)
        }
        // Of 64 buckets, one meets about three of 200.
        #expect(met > 0 && met < 20 && met + apart == 200, "\(met), \(apart)")
    }

    /// A super-packet that is cut here and merged at the peer is the same super-packet.
    @Test func whatIsCutIsMergedAgain() {
        var random = SeededGenerator(seed: 321)
        let peerPolicy = Policies.make("10.100.200.2", Policies.siteDomain)
        for round in 0..<80 {
            var reads: [[UInt8]] = []
            for index in 0..<Int.random(in: 1...8, using: &random) {
                let isTCP = random.next() % 3 > 0
                let size = Int.random(in: 1...40, using: &random)
                let segments = Int.random(in: 2...12, using: &random)
                let payload = (segments - 1) * size + Int.random(in: 1...size, using: &random)
                reads.append(
                    SegmentationSplitTests.superPacket(
                        isTCP: isTCP, payload: random.bytes(payload), size: size,
                        flags: [0x10, 0x18, 0x11, 0x19, 0x90, 0x50, 0xD8].randomElement(using: &random)!,
                        options: isTCP && index % 2 == 0 ? hex("0101080a 00000001 00000002") : [],
                        sequence: UInt32.random(in: 0...UInt32.max, using: &random), port: UInt16(index + 1),
                        trafficClass: [0, 0x02, 0xB8].randomElement(using: &random)!, flowLabel: UInt32(index)))
            }
            var uplink = UplinkBench(reads)
            let wire = uplink.run().map { Packets.outer("10.100.100.1", "10.100.200.2", $0.bytes, tos: $0.outer.tos) }
            var downlink = DownlinkBench(wire)
            let frames = downlink.run(peerPolicy)
            if frames.map(\.bytes) != reads { Issue.record("seed 321, round \(round)") }
        }
    }

    /// Garbage, near misses and real packets in one batch.
    @Test func garbageOnTheDownlink() {
        var random = SeededGenerator(seed: 331)
        var (delivered, dropped) = (0, 0)
        for round in 0..<250 {
            let packets = Self.arrivals(&random, count: 20).map { arrival -> [UInt8] in
                switch random.next() % 8 {
                case 0: random.bytes(Int.random(in: 0...100, using: &random))
                case 1, 2: arrival.wire.mutated(&random)
                case 3:
                    ReceiveMergeTests.outer(
                        Packets.inner(
                            Self.peer, Self.us, next: [6, 17].randomElement(using: &random)!,
                            payload: random.bytes(Int.random(in: 0...40, using: &random))))
                default: arrival.wire
                }
            }
            var bench = DownlinkBench(packets)
            let frames = bench.run()
            let forgotten = bench.room.droppedSlices
            #expect(frames.reduce(0) { $0 + $1.packetCount } + forgotten.count == packets.count, "seed 331, round \(round)")
            #expect(Set(forgotten).count == forgotten.count)
            #expect(DropReason.allCases.reduce(0) { $0 + bench.counters[$1] } == UInt64(forgotten.count))
            for frame in frames where frame.packetCount > 1 {
                if KernelReference.packets(of: frame.bytes)?.count != frame.packetCount {
                    Issue.record("seed 331, round \(round)")
                }
            }
            let gapsAreUntouched = bench.gapsAreUntouched
            #expect(gapsAreUntouched)
            for index in frames.indices where frames[index].packetCount > 1 {
                let count = bench.unmerge(index).count
                #expect(count == frames[index].packetCount)
            }
            delivered += frames.count
            dropped += forgotten.count
        }
        #expect(delivered > 1000 && dropped > 500, "\(delivered), \(dropped)")
    }
}
