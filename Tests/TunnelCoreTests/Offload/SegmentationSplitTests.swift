import Testing
import TunnelCore

/// Segments and finished checksums, through the batch function of the uplink.
@Suite struct SegmentationSplitTests {
    static let outer = OuterHeader(destination: v4("10.100.200.2"), ttl: 64, tos: 0)

    // MARK: What a super-packet becomes

    @Test(.enabled(if: UInt16(littleEndian: 1) == 1), arguments: SplitVectors.segmentation)
    func superPackets(vector: SplitVector) {
        var bench = UplinkBench([vector.virtio + vector.packet])
        let frames = bench.run(Policies.site.with(tos: .fixed(0)))
        #expect(frames.map(\.bytes) == vector.frames)
        for (frame, expected) in zip(frames, vector.frames) {
            #expect(frame.outer.destination == Self.outer.destination && frame.outer.ttl == 64)
            #expect(frame.innerLength == expected.count && frame.packetCount == 1)
            // The payload stays where it was read to; only headers are new.
            #expect(frame.slices.count == 2)
            let scratch = bench.room.scratch
            #expect(frame.slices[0].range.clamped(to: scratch) == frame.slices[0].range)
            #expect(bench.slices[0].range.contains(Int(frame.slices[1].offset)))
        }
        let (isUntouched, next, dropped) = (bench.isUntouched, bench.next, bench.room.dropped.count)
        #expect(isUntouched && next == 1 && dropped == 0)
        #expect(bench.counters.splitPackets == (vector.frames.count > 1 ? 1 : 0))
        for reason in DropReason.allCases { #expect(bench.counters[reason] == 0) }
    }

    @Test(.enabled(if: UInt16(littleEndian: 1) == 1), arguments: SplitVectors.checksumOnly)
    func checksums(vector: SplitVector) {
        var bench = UplinkBench([vector.virtio + vector.packet])
        let frames = bench.run()
        #expect(frames.map(\.bytes) == vector.frames)
        // In its own place, and nothing but the checksum field is written.
        let start = Int(bench.slices[0].offset) + 10
        let field = start + Int(vector.virtio[6]) + Int(vector.virtio[8])
        #expect(frames.first?.slices == [Slice(offset: start, length: vector.frames[0].count)])
        var memory = bench.memory
        memory.replaceSubrange(field..<field + 2, with: bench.before[field..<field + 2])
        #expect(memory == bench.before)
        #expect(bench.counters.splitPackets == 0)
    }

    /// A forwarded packet whose checksum the network card or GRO has verified comes with VIRTIO_NET_HDR_F_DATA_VALID (2): the
    /// kernel's `tun_put_user` asks `virtio_net_hdr_from_skb` for it. Nothing is left to do then.
    @Test func aVerifiedChecksumIsNoRequest() {
        let packet = SplitVectors.checksumOnly[0].frames[0]
        var bench = UplinkBench([[2, 0, 0, 0, 0, 0, 0, 0, 0, 0] + packet])
        let frames = bench.run()
        #expect(frames.map(\.bytes) == [packet])
        #expect(bench.counters[.uplinkOffload] == 0)
        let isUntouched = bench.isUntouched
        #expect(isUntouched)
    }

    /// The longest super-packets there are: 40 bytes of IPv6 header and 65,535 behind it.
    @Test(arguments: [(true, 1440), (true, 1428), (false, 1452), (true, 32767), (false, 32763), (true, 65455), (false, 65467)])
    func theLongest(isTCP: Bool, size: Int) {
        let original = Self.superPacket(isTCP: isTCP, payload: Transport.pattern(65575 - (isTCP ? 60 : 48)), size: size)
        var bench = UplinkBench([original])
        let frames = bench.run()
        let isUntouched = bench.isUntouched
        #expect(original.count == 65585 && isUntouched)
        #expect(frames.map(\.bytes) == KernelReference.packets(of: original))
    }

    /// A segment is a packet, too: one byte more than 65,515 and no IPv4 packet can carry it.
    @Test(arguments: [(true, 65456), (true, 65515), (false, 65468), (false, 65527), (true, 65535)])
    func segmentsThatNoIPv4PacketCarries(isTCP: Bool, size: Int) {
        let original = Self.superPacket(isTCP: isTCP, payload: Transport.pattern(65575 - (isTCP ? 60 : 48)), size: size)
        var bench = UplinkBench([original])
        let frames = bench.run()
        let lengths = frames.map(\.innerLength)
        #expect(lengths.isEmpty)
        #expect(bench.counters[.uplinkOversized] + bench.counters[.uplinkOffload] == 1)
    }

    /// From us to the peer, as the kernel hands it over.
    static func superPacket(
        isTCP: Bool, payload: [UInt8], size: Int, flags: UInt8 = 0x10, options: [UInt8] = [], sequence: UInt32 = 1,
        port: UInt16 = 443,
        trafficClass: UInt8 = 0, flowLabel: UInt32 = 0, hopLimit: UInt8 = 64
    ) -> [UInt8] {
        var transport = Transport()
        transport.isTCP = isTCP
        (transport.source, transport.destination) = (transport.destination, transport.source)
        transport.destinationPort = port
        transport.sequence = sequence
        transport.flags = flags
        transport.options = options
        transport.payload = payload
        transport.trafficClass = trafficClass
        transport.flowLabel = flowLabel
        transport.hopLimit = hopLimit
        transport.checksum = .unfinished
        let type: UInt8 = isTCP ? (flags & 0x80 != 0 ? 0x84 : 4) : 5
        return KernelReference.virtio(
            type: type, headers: 40 + (isTCP ? 20 + options.count : 8), size: size, offset: isTCP ? 16 : 6) + transport.bytes
    }

    @Test func randomSuperPackets() {
        var random = SeededGenerator(seed: 201)
        for round in 0..<300 {
            let isTCP = round % 3 > 0
            let options = [[], hex("0101080a1122334455667788"), [UInt8](repeating: 1, count: 40)].randomElement(using: &random)!
            let original = Self.superPacket(
                isTCP: isTCP, payload: random.bytes(Int.random(in: 1...400, using: &random)),
                size: Int.random(in: 4...300, using: &random), flags: UInt8.random(in: 0...255, using: &random) & ~0x06,
                options: isTCP ? options : [], sequence: UInt32.random(in: 0...UInt32.max, using: &random),
                trafficClass: UInt8.random(in: 0...255, using: &random),
                flowLabel: UInt32.random(in: 0...0xFFFFF, using: &random),
                hopLimit: UInt8.random(in: 1...255, using: &random))
            var bench = UplinkBench([original])
            let frames = bench.run()
            if frames.map(\.bytes) != KernelReference.packets(of: original) { Issue.record("seed 201, round \(round)") }
            let isUntouched = bench.isUntouched
            #expect(isUntouched)
        }
    }

    // MARK: Requests that make no sense

    struct Nonsense: CustomTestStringConvertible {
        let name: String
        let read: [UInt8]
        var reason = DropReason.uplinkOffload
        var testDescription: String { name }
    }

    static let tcp = Array(superPacket(isTCP: true, payload: Transport.pattern(40), size: 16)[10...])
    static let udp = Array(superPacket(isTCP: false, payload: Transport.pattern(40), size: 16)[10...])
    static let finish = SplitVectors.checksumOnly[0].packet

    static func changed(_ packet: [UInt8], _ changes: KeyValuePairs<Int, UInt8>) -> [UInt8] {
        var packet = packet
        for (offset, value) in changes { packet[offset] = value }
        return packet
    }

    static func virtio(_ type: UInt8, _ size: Int, _ start: Int, _ offset: Int) -> [UInt8] {
        virtio(1, type, size, start, offset)
    }

    static func virtio(_ flags: UInt8, _ type: UInt8, _ size: Int, _ start: Int, _ offset: Int) -> [UInt8] {
        KernelReference.virtio(flags, type: type, headers: 60, size: size, start: start, offset: offset)
    }

    /// The same packet behind a fragment header: what is at offset 48 is a part of TCP.
    static let fragment = Packets.inner(
        "2001:db8:6464:100::1", "2001:db8:64c8:200::2", next: 44,
        payload: Packets.fragmentHeader(next: 6, offset: 0, more: true) + tcp[40...])
    static let laterFragment = Packets.inner(
        "2001:db8:6464:100::1", "2001:db8:64c8:200::2", next: 44,
        payload: Packets.fragmentHeader(next: 6, offset: 100, more: false) + tcp[40...])
    static let behindOptions = Packets.inner(
        "2001:db8:6464:100::1", "2001:db8:64c8:200::2", next: 0, payload: Packets.extensionHeader(next: 6) + tcp[40...])

    static let nonsense: [Nonsense] = [
        Nonsense(name: "TCP, segment size 0", read: virtio(4, 0, 40, 16) + tcp),
        Nonsense(name: "UDP, segment size 0", read: virtio(5, 0, 40, 6) + udp),
        Nonsense(name: "segmentation without a checksum request", read: virtio(0, 4, 16, 40, 16) + tcp),
        Nonsense(name: "segmentation with a verified checksum", read: virtio(2, 4, 16, 40, 16) + tcp),
        Nonsense(name: "TCP over IPv4", read: virtio(1, 16, 40, 16) + tcp),
        Nonsense(name: "UDP fragments, VIRTIO_NET_HDR_GSO_UDP", read: virtio(3, 16, 40, 6) + udp),
        Nonsense(name: "type 2", read: virtio(2, 16, 40, 16) + tcp),
        Nonsense(name: "type 6", read: virtio(6, 16, 40, 16) + tcp),
        Nonsense(name: "type 0x24", read: virtio(0x24, 16, 40, 16) + tcp),
        Nonsense(name: "type 0x7f", read: virtio(0x7F, 16, 40, 16) + tcp),
        Nonsense(name: "TCP asked of UDP", read: virtio(4, 16, 40, 16) + udp),
        Nonsense(name: "UDP asked of TCP", read: virtio(5, 16, 40, 6) + tcp),
        Nonsense(name: "TCP with UDP's checksum offset", read: virtio(4, 16, 40, 6) + tcp),
        Nonsense(name: "UDP with TCP's checksum offset", read: virtio(5, 16, 40, 16) + udp),
        Nonsense(name: "TCP, checksum offset 15", read: virtio(4, 16, 40, 15) + tcp),
        Nonsense(name: "TCP, checksum offset 0", read: virtio(4, 16, 40, 0) + tcp),
        Nonsense(name: "TCP, checksum offset 65535", read: virtio(4, 16, 40, 65535) + tcp),
        Nonsense(name: "TCP from 0", read: virtio(4, 16, 0, 16) + tcp),
        Nonsense(name: "TCP from 24, whose field is at 40", read: virtio(4, 16, 24, 16) + tcp),
        Nonsense(name: "TCP from 39", read: virtio(4, 16, 39, 16) + tcp),
        Nonsense(name: "TCP from 41", read: virtio(4, 16, 41, 16) + tcp),
        Nonsense(name: "TCP from 44", read: virtio(4, 16, 44, 16) + tcp),
        Nonsense(name: "TCP from the packet's end", read: virtio(4, 16, 100, 16) + tcp),
        Nonsense(name: "TCP from past the packet's end", read: virtio(4, 16, 101, 16) + tcp),
        Nonsense(name: "TCP from 65535", read: virtio(4, 16, 65535, 16) + tcp),
        Nonsense(name: "UDP from 65535", read: virtio(5, 16, 65535, 6) + udp),
        Nonsense(name: "TCP header of 4 words", read: virtio(4, 16, 40, 16) + changed(tcp, [52: 0x40])),
        Nonsense(name: "TCP header of 0 words", read: virtio(4, 16, 40, 16) + changed(tcp, [52: 0x00])),
        Nonsense(name: "TCP header past the end", read: virtio(4, 16, 40, 16) + changed(Array(tcp[..<90]), [5: 50, 52: 0xF0])),
        Nonsense(name: "TCP header cut", read: virtio(4, 16, 40, 16) + changed(Array(tcp[..<59]), [5: 19])),
        Nonsense(name: "TCP cut before the checksum", read: virtio(4, 16, 40, 16) + changed(Array(tcp[..<57]), [5: 17])),
        Nonsense(name: "UDP header cut", read: virtio(5, 16, 40, 6) + changed(Array(udp[..<47]), [5: 7])),
        Nonsense(name: "no transport at all", read: virtio(4, 16, 40, 16) + changed(Array(tcp[..<40]), [5: 0])),
        Nonsense(name: "another protocol", read: virtio(4, 16, 40, 16) + changed(tcp, [6: 132])),
        Nonsense(name: "no next header", read: virtio(4, 16, 40, 16) + changed(tcp, [6: 59])),
        Nonsense(name: "the payload length cuts TCP's header", read: virtio(4, 16, 40, 16) + changed(tcp, [5: 19])),
        Nonsense(name: "the payload length is 0", read: virtio(4, 16, 40, 16) + changed(tcp, [5: 0])),
        Nonsense(
            name: "the payload length runs past the end", read: virtio(4, 16, 40, 16) + changed(tcp, [5: 61]),
            reason: .uplinkTruncated),
        Nonsense(
            name: "the payload length runs far past the end", read: virtio(5, 16, 40, 6) + changed(udp, [4: 0xFF]),
            reason: .uplinkTruncated),
        Nonsense(name: "a first fragment", read: virtio(4, 16, 48, 16) + fragment),
        Nonsense(name: "a later fragment", read: virtio(4, 16, 48, 16) + laterFragment),
        Nonsense(name: "a fragment header taken for TCP", read: virtio(4, 16, 40, 16) + fragment),
        Nonsense(name: "options taken for TCP", read: virtio(4, 16, 40, 16) + behindOptions),
        Nonsense(name: "TCP taken for something behind it", read: virtio(4, 16, 48, 16) + tcp),
        Nonsense(name: "options that run past the end", read: virtio(4, 16, 48, 16) + changed(behindOptions, [41: 200])),
        Nonsense(name: "checksum from 0", read: virtio(0, 0, 0, 16) + finish),
        Nonsense(name: "checksum from 39", read: virtio(0, 0, 39, 16) + finish),
        Nonsense(name: "checksum from the packet's end", read: virtio(0, 0, 73, 0) + finish),
        Nonsense(name: "checksum field past the end", read: virtio(0, 0, 40, 33) + finish),
        Nonsense(name: "checksum field half past the end", read: virtio(0, 0, 40, 32) + finish),
        Nonsense(name: "checksum from 65535, field at 65535", read: virtio(0, 0, 65535, 65535) + finish),
        Nonsense(
            name: "a checksum field of a packet without payload",
            read: virtio(0, 0, 40, 0) + changed(Array(finish[..<40]), [5: 0])),
    ]

    @Test(arguments: nonsense)
    func isDropped(row: Nonsense) {
        var bench = UplinkBench([row.read])
        let frames = bench.run()
        let (memory, dropped, slices) = (bench.memory, bench.room.droppedSlices, bench.room.slices.count)
        #expect(frames.isEmpty && slices == 0)
        #expect(dropped == bench.slices)
        #expect(memory == bench.before)
        #expect(bench.next == 1)
        for reason in DropReason.allCases { #expect(bench.counters[reason] == (reason == row.reason ? 1 : 0), "\(reason)") }
        #expect(bench.counters.splitPackets == 0)
    }

    /// The virtio-net header's hdr_len is a hint: any value gives the same.
    @Test(arguments: [0, 1, 40, 48, 59, 60, 61, 100, 65535])
    func theHeaderLengthIsNotTrusted(claimed: Int) {
        for (type, offset, packet) in [(4, 16, Self.tcp), (5, 6, Self.udp)] as [(UInt8, Int, [UInt8])] {
            var honest = UplinkBench([Self.virtio(type, 16, 40, offset) + packet])
            var liar = UplinkBench([KernelReference.virtio(type: type, headers: claimed, size: 16, offset: offset) + packet])
            let (expected, frames) = (honest.run(), liar.run())
            #expect(frames == expected && frames.count == 3)
        }
    }

    // MARK: Batches

    /// Super-packets of 1 to 5 segments, plain packets, checksums and refusals, each with its own bytes.
    private static func mixture(_ random: inout SeededGenerator, count: Int) -> (
        reads: [[UInt8]], packets: [[UInt8]], refused: Int
    ) {
        var (reads, packets, refused): ([[UInt8]], [[UInt8]], Int) = ([], [], 0)
        for index in 0..<count {
            let port = UInt16(1000 + index)
            let payload = random.bytes(Int.random(in: 1...50, using: &random))
            switch random.next() % 6 {
            case 0:
                let packet = Packets.inner("2001:db8:6464:100::1", "2001:db8:64c8:200::2", payload: payload)
                reads.append([UInt8](repeating: 0, count: 10) + packet)
                packets.append(packet)
            case 1:
                reads.append(superPacket(isTCP: true, payload: payload, size: 0, port: port))
                refused += 1
            case 2:
                let read = superPacket(isTCP: false, payload: payload, size: 0, port: port)
                reads.append(KernelReference.virtio(offset: 6) + read[10...])
                packets.append(KernelReference.finished(Array(read[10...])))
            default:
                let read = superPacket(isTCP: random.next() % 3 > 0, payload: payload, size: 10, port: port)
                reads.append(read)
                packets += KernelReference.packets(of: read)!
            }
        }
        return (reads, packets, refused)
    }

    /// Whatever the room, each packet comes out once and in order, and each slot is accounted for once.
    @Test(arguments: [
        (5, 10, 5 * 64), (5, 10, 1 << 12), (6, 12, 6 * 64), (7, 64, 1 << 12), (64, 11, 1 << 12), (64, 128, 400),
        (256, 512, 1 << 15),
    ])
    func smallRooms(frameRoom: Int, sliceRoom: Int, scratch: Int) {
        var random = SeededGenerator(seed: 202)
        for round in 0..<20 {
            let (reads, packets, refused) = Self.mixture(&random, count: 30)
            var bench = UplinkBench(reads, frames: frameRoom, slices: sliceRoom, scratch: scratch)
            var (sent, dropped): ([[UInt8]], [Slice]) = ([], [])
            var calls = 0
            while bench.next < reads.count {
                let before = bench.next
                let frames = bench.run()
                // Frames of a call do not disturb each other.
                sent += frames.map(\.bytes)
                dropped += bench.room.droppedSlices
                calls += 1
                #expect(frames.count <= frameRoom)
                if bench.next == before {
                    Issue.record("no progress at \(before), seed 202, round \(round)")
                    return
                }
            }
            #expect(sent == packets, "seed 202, round \(round)")
            #expect(dropped.count == refused && Set(dropped).count == refused)
            #expect(bench.counters[.uplinkOffload] == UInt64(refused))
            if frameRoom < 64 { #expect(calls > 3) }
        }
    }

    @Test func aPacketThatWaitsIsNotTouchedAndNotCounted() {
        let read = Self.superPacket(isTCP: true, payload: Transport.pattern(50), size: 10)
        var bench = UplinkBench([read, read], frames: 7, slices: 14, scratch: 7 * 64)
        let first = bench.run()
        #expect(first.count == 5 && bench.next == 1 && bench.counters.splitPackets == 1)
        let second = bench.run()
        #expect(second.map(\.bytes) == first.map(\.bytes))
        #expect(bench.next == 2 && bench.counters.splitPackets == 2)
        let third = bench.run()
        #expect(third.isEmpty && bench.next == 2)
    }

    @Test(arguments: [
        (4, 64, 1 << 12, "frames"), (64, 8, 1 << 12, "slices"), (64, 9, 1 << 12, "slices"), (64, 128, 5 * 64 - 1, "scratch"),
        (64, 128, 0, "scratch"),
    ])
    func whatCanNeverFitIsDropped(frameRoom: Int, sliceRoom: Int, scratch: Int, what: String) {
        let small = [UInt8](repeating: 0, count: 10) + Packets.inner("2001:db8:6464:100::1", "2001:db8:64c8:200::2")
        let large = Self.superPacket(isTCP: true, payload: Transport.pattern(50), size: 10)
        var bench = UplinkBench([small, large, small], frames: frameRoom, slices: sliceRoom, scratch: scratch)
        let frames = bench.run()
        let dropped = bench.room.droppedSlices
        #expect(frames.count == 2 && dropped == [bench.slices[1]] && bench.next == 3)
        #expect(bench.counters[.uplinkOffload] == 1)
        let isUntouched = bench.isUntouched
        #expect(isUntouched)
    }

    @Test func exactlyAllTheRoom() {
        let read = Self.superPacket(isTCP: true, payload: Transport.pattern(50), size: 10)
        var bench = UplinkBench([read], frames: 5, slices: 10, scratch: 5 * 64)
        let frames = bench.run()
        #expect(frames.map(\.bytes) == KernelReference.packets(of: read))
    }

    @Test func theOuterHeaderIsTheSameForAll() {
        let read = Self.superPacket(
            isTCP: true, payload: Transport.pattern(50), size: 10, trafficClass: 0xBA, hopLimit: 9)
        var bench = UplinkBench([read])
        let frames = bench.run(Policies.site.with(ttl: .inherit, tos: .inherit))
        let outer = OuterHeader(destination: v4("10.100.200.2"), ttl: 9, tos: 0xBA)
        #expect(frames.map(\.outer) == Array(repeating: outer, count: 5))
    }

    // MARK: Totality

    @Test func garbage() {
        var random = SeededGenerator(seed: 203)
        let packets = [Self.tcp, Self.udp, Self.finish, Self.behindOptions, Self.fragment]
        let types: [UInt8] = [0, 1, 3, 4, 4, 4, 5, 5, 0x80, 0x84, 0x85]
        var outcomes = [0, 0]
        for round in 0..<1500 {
            let reads = (0..<Int.random(in: 1...6, using: &random)).map { _ -> [UInt8] in
                if random.next() % 8 == 0 { return random.bytes(Int.random(in: 0...120, using: &random)) }
                var read =
                    KernelReference.virtio(
                        [1, 1, 1, 1, 0, 2, 3].randomElement(using: &random)!, type: types.randomElement(using: &random)!,
                        headers: Int.random(in: 0...65535, using: &random),
                        size: [0, 1, 7, 16, 40, 65535].randomElement(using: &random)!,
                        start: [40, 40, 40, 40, 40, 40, 48, 48, 0, 39, 41, 99, 65535].randomElement(using: &random)!,
                        offset: [0, 2, 6, 6, 16, 16, 17, 60, 65535].randomElement(using: &random)!) + packets.randomElement(
                        using: &random)!
                if random.next() % 3 == 0 { read = read.mutated(&random) }
                return read
            }
            let frameRoom = Int.random(in: 1...60, using: &random)
            var bench = UplinkBench(reads, frames: frameRoom, scratch: Int.random(in: 0...4000, using: &random))
            var (slots, dropped) = (0, 0)
            while bench.next < reads.count {
                let before = bench.next
                let frames = bench.run()
                let here = bench.room.dropped.count
                slots += bench.next - before
                dropped += here
                outcomes[0] += frames.count
                outcomes[1] += here
                for frame in frames {
                    let payloadLength = frame.bytes.count > 5 ? KernelReference.number(frame.bytes, 4) : -1
                    if frame.bytes.count != frame.innerLength || payloadLength + 40 != frame.innerLength
                        || frame.bytes[0] >> 4 != 6
                    {
                        Issue.record("seed 203, round \(round): \(frame)")
                    }
                }
                guard bench.next > before else {
                    Issue.record("no progress, seed 203, round \(round)")
                    return
                }
            }
            #expect(slots == reads.count)
            #expect(DropReason.allCases.reduce(0) { $0 + bench.counters[$1] } == UInt64(dropped))
        }
        #expect(outcomes[0] > 200 && outcomes[1] > 500, "\(outcomes)")
    }
}
