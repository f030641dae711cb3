import TunnelCore

/// One frame as whoever reads its gather list sees it.
struct GatheredFrame: Equatable {
    var outer: OuterHeader
    var slices: [Slice]
    var packetCount: Int
    var innerLength: Int
    /// The slices' bytes, one after the other.
    var bytes: [UInt8]

    /// On the downlink: without the virtio-net header.
    var packet: [UInt8] { Array(bytes[10...]) }
    var isSuperPacket: Bool { bytes[1] != 0 }
}

extension FrameBatch {
    /// All frames from `first` on.
    func gathered(in memory: [UInt8], from first: Int = 0) -> [GatheredFrame] {
        var result: [GatheredFrame] = []
        for index in first..<frames.count {
            let frame = frames[index]
            var slices: [Slice] = []
            for slice in Int(frame.firstSlice)..<Int(frame.firstSlice + frame.sliceCount) { slices.append(self.slices[slice]) }
            result.append(
                GatheredFrame(
                    outer: frame.outer, slices: slices, packetCount: Int(frame.packetCount), innerLength: Int(frame.innerLength),
                    bytes: slices.flatMap { memory[$0.range] }))
        }
        return result
    }

    var droppedSlices: [Slice] {
        var result: [Slice] = []
        for index in 0..<dropped.count { result.append(dropped[index]) }
        return result
    }
}

/// Reads of the TUN in one memory, bytes of 0xA5 around each, and the room for headers before them all.
struct UplinkBench: ~Copyable {
    let slices: [Slice]
    let before: [UInt8]
    var memory: [UInt8]
    var batch: FixedList<Slice>
    var room: FrameBatch
    var counters = Counters()
    var next = 0

    init(_ reads: [[UInt8]], frames: Int = 256, slices: Int? = nil, scratch: Int = 1 << 15) {
        var memory = [UInt8](repeating: 0xA5, count: 32 + scratch)
        var all: [Slice] = []
        batch = FixedList(capacity: reads.count)
        for (index, read) in reads.enumerated() {
            memory += [UInt8](repeating: 0xA5, count: index % 5 * 3 + 1)
            let slice = Slice(offset: memory.count, length: read.count)
            batch.append(slice)
            all.append(slice)
            memory += read
        }
        memory += [0xA5, 0xA5, 0xA5]
        room = FrameBatch(frames: frames, slices: slices ?? 2 * frames, packets: reads.count, scratch: 32..<32 + scratch)
        (before, self.memory, self.slices) = (memory, memory, all)
    }

    /// The memory, for a call that writes to other properties as well; it goes back afterwards, uncopied.
    private mutating func take() -> [UInt8] {
        defer { memory = [] }
        return memory
    }

    /// One call, into an empty room; its frames as they are then.
    mutating func run(_ policy: TunnelPolicy = Policies.site) -> [GatheredFrame] {
        room.removeAll()
        var bytes = take()
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        policy.encapsulate(batch, from: &next, in: &raw, into: &room, counters: &counters)
        memory = bytes
        return room.gathered(in: memory)
    }

    /// Whether all bytes but those of the scratch memory are what they were.
    var isUntouched: Bool {
        memory[..<32] == before[..<32] && memory[room.scratch.upperBound...] == before[room.scratch.upperBound...]
    }
}

/// Packets of the underlay in one memory, bytes of 0xA5 around each.
struct DownlinkBench: ~Copyable {
    let slices: [Slice]
    let before: [UInt8]
    var memory: [UInt8]
    var batch: FixedList<Slice>
    var room: FrameBatch
    var merge: ReceiveMerge
    var counters = Counters()

    init(_ packets: [[UInt8]], merges: Bool = true) {
        var memory: [UInt8] = []
        var all: [Slice] = []
        batch = FixedList(capacity: packets.count)
        for (index, packet) in packets.enumerated() {
            memory += [UInt8](repeating: 0xA5, count: index % 5 * 3 + 1)
            let slice = Slice(offset: memory.count, length: packet.count)
            batch.append(slice)
            all.append(slice)
            memory += packet
        }
        memory += [0xA5, 0xA5, 0xA5]
        // Twice, as a worker has it: a refused frame's packets are put behind it.
        room = FrameBatch(frames: 2 * packets.count, slices: 2 * packets.count, packets: packets.count, scratch: 0..<0)
        merge = ReceiveMerge(capacity: packets.count, isOn: merges)
        (before, self.memory, self.slices) = (memory, memory, all)
    }

    /// The memory, for a call that writes to other properties as well; it goes back afterwards, uncopied.
    private mutating func take() -> [UInt8] {
        defer { memory = [] }
        return memory
    }

    /// - Parameter witness: unless said otherwise, one that saw the kernel merge nothing.
    mutating func run(
        _ policy: TunnelPolicy = Policies.site, witness: (any MergeWitness)? = NothingMerged()
    ) -> [GatheredFrame] {
        var bytes = take()
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        policy.decapsulate(batch, in: &raw, merge: &merge, witness: witness, into: &room, counters: &counters)
        memory = bytes
        return room.gathered(in: memory)
    }

    /// Takes the frame with this number apart; the packets as they are then.
    mutating func unmerge(_ index: Int) -> [GatheredFrame] {
        let first = room.frames.count
        let frame = room.frames[index]
        var bytes = take()
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        _ = ReceiveMerge.unmerge(frame, in: &raw, into: &room)
        memory = bytes
        return room.gathered(in: memory, from: first)
    }

    /// Whether the bytes between the packets are what they were.
    var gapsAreUntouched: Bool {
        var end = 0
        for slice in slices {
            if memory[end..<slice.range.lowerBound] != before[end..<slice.range.lowerBound] { return false }
            end = slice.range.upperBound
        }
        return memory[end...] == before[end...]
    }
}

/// Saw every packet arrive as it was on the wire.
final class NothingMerged: MergeWitness {
    func beginBatch() -> Bool { false }
    func count(of packet: RawSpan) -> PacketCount { preconditionFailure("it said that there is nothing to ask") }
    func endBatch() { preconditionFailure("it was asked about nothing") }
}

/// What a kernel does with a virtio-net header and the packet behind it, byte by byte and slowly: `virtio_net_hdr_to_skb`, then
/// `tcp_gso_segment`, `__udp_gso_segment` or `skb_checksum_help`. For transports right behind the IPv6 header.
enum KernelReference {
    static func number(_ bytes: [UInt8], _ offset: Int) -> Int { Int(bytes[offset]) * 256 + Int(bytes[offset + 1]) }
    /// Of the virtio-net header, in the machine's order.
    static func native(_ bytes: [UInt8], _ offset: Int) -> Int {
        UInt16(littleEndian: 1) == 1 ? Int(bytes[offset]) + 256 * Int(bytes[offset + 1]) : number(bytes, offset)
    }

    /// A virtio-net header in the machine's order.
    static func virtio(_ flags: UInt8 = 1, type: UInt8 = 0, headers: Int = 0, size: Int = 0, start: Int = 40, offset: Int)
        -> [UInt8]
    {
        [flags, type]
            + [headers, size, start, offset].flatMap { value in
                let bytes = Packets.bytes(UInt16(value))
                return UInt16(littleEndian: 1) == 1 ? bytes.reversed() : bytes
            }
    }

    /// The folded pseudo-header sum of a packet without extension headers.
    static func pseudoSum(_ packet: [UInt8]) -> UInt16 {
        NaiveChecksum.sum(
            NaiveChecksum.pseudoHeader(addresses: packet[8..<40], length: packet.count - 40, protocolNumber: packet[6]))
    }

    /// With the payload length, UDP's length and the checksum made right.
    static func finished(_ packet: [UInt8]) -> [UInt8] {
        var packet = packet
        let length = packet.count - 40
        packet.replaceSubrange(4..<6, with: Packets.bytes(UInt16(length)))
        let isTCP = packet[6] == 6
        if !isTCP { packet.replaceSubrange(44..<46, with: Packets.bytes(UInt16(length))) }
        let field = isTCP ? 56 : 46
        (packet[field], packet[field + 1]) = (0, 0)
        let pseudo = NaiveChecksum.pseudoHeader(addresses: packet[8..<40], length: length, protocolNumber: packet[6])
        var checksum = ~NaiveChecksum.sum(pseudo + packet[40...])
        if !isTCP && checksum == 0 { checksum = 0xFFFF }
        packet.replaceSubrange(field..<field + 2, with: Packets.bytes(checksum))
        return packet
    }

    /// The packets that leave the kernel for one frame; nil where it refuses the frame, or where the checksum field does not
    /// hold the pseudo header's sum.
    static func packets(of frame: [UInt8]) -> [[UInt8]]? {
        let packet = Array(frame[10...])
        guard frame[0] & 1 != 0 else { return frame[..<10].allSatisfy { $0 == 0 } ? [packet] : nil }
        let (type, size, start, offset) = (frame[1] & 0x7F, native(frame, 4), native(frame, 6), native(frame, 8))
        guard start == 40, packet.count >= start + offset + 2 else { return nil }
        guard number(packet, start + offset) == Int(pseudoSum(packet)), number(packet, 4) == packet.count - 40 else { return nil }
        if type == 0 { return [finished(packet)] }
        let headers: Int
        switch (type, packet[6], offset) {
        case (4, 6, 16): headers = 40 + Int(packet[52] >> 4) * 4
        case (5, 17, 6) where frame[1] == 5: headers = 48
        default: return nil
        }
        // hdr_len is what a driver would take for the headers' length.
        guard size > 0, native(frame, 2) == headers, type == 5 || (frame[1] & 0x80 != 0) == (packet[53] & 0x80 != 0) else {
            return nil
        }

        var result: [[UInt8]] = []
        var rest = packet[headers...]
        let sequence = type == 4 ? packet[44..<48].reduce(0 as UInt32) { $0 << 8 | UInt32($1) } : 0
        while !rest.isEmpty {
            var segment = Array(packet[..<headers])
            let isFirst = result.isEmpty
            let payload = rest.prefix(size)
            if type == 4 {
                segment.replaceSubrange(44..<48, with: Packets.bytes(sequence &+ UInt32(result.count * size)))
                if !isFirst { segment[53] &= ~0x80 }
                if payload.count < rest.count { segment[53] &= ~0x09 }
            }
            rest = rest.dropFirst(payload.count)
            result.append(finished(segment + payload))
        }
        return result
    }
}
