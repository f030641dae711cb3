internal import Glibc
internal import RingIO
internal import TunnelCore

/// What a turn brought: packets that wait for their stage, and what became of the frames under way.
struct Traffic: PacketSink, ~Copyable {
    var uplink: FixedList<Slice>
    var downlink: FixedList<Slice>
    /// Frames for the underlay, and for the TUN; the engine speaks of them by number.
    var sends: FrameBatch
    var deliveries: FrameBatch
    /// Merged frames that the TUN refused and that are still to be taken apart.
    var refusals: FixedList<UInt32>
    /// Where in `deliveries` the packets begin that were taken out of refused frames, and for each from there on whether it is
    /// TCP.
    var firstRetry = Int.max
    var retryIsTCP: FixedList<Bool>
    var refusedMerging: RefusedMerging
    var counters = Counters()
    var answers: Answers

    /// - Parameters:
    ///   - slots: of the engine's memory; a packet waits in a slot.
    ///   - sends: the most frames and slices in a batch for the underlay.
    ///   - scratch: where headers may be written.
    ///   - cutsUDP: the TUN's kernel may be asked to.
    init(
        slots: Int, sends: (frames: Int, slices: Int), scratch: Range<Int>, answers: consuming Answers, cutsUDP: Bool = true
    ) {
        self.answers = answers
        refusedMerging = RefusedMerging(cutsUDP: cutsUDP)
        uplink = FixedList(capacity: slots)
        downlink = FixedList(capacity: slots)
        self.sends = FrameBatch(frames: sends.frames, slices: sends.slices, packets: slots, scratch: scratch)
        deliveries = FrameBatch(frames: 2 * slots, slices: 2 * slots, packets: slots, scratch: 0..<0)
        refusals = FixedList(capacity: slots)
        retryIsTCP = FixedList(capacity: 2 * slots)
    }

    @inline(__always)
    mutating func fromTun(offset: Int, length: Int) { uplink.append(Slice(offset: offset, length: length)) }

    @inline(__always)
    mutating func fromUnderlay(offset: Int, length: Int) { downlink.append(Slice(offset: offset, length: length)) }

    @inline(__always)
    mutating func sent(frame: Int) {
        counters.uplinkPackets &+= 1
        counters.uplinkBytes &+= UInt64(sends.frames[frame].innerLength)
    }

    mutating func unsent(frame: Int, code: Int32, pathMTU: Int, memory: inout PacketMemory) -> Remedy {
        if sends.frames[frame].outer.protocolNumber == ProtocolNumber.ipv4 {
            return code == EMSGSIZE ? tooBigIPv4(frame: frame, pathMTU: pathMTU, memory: &memory) : .none
        }
        let error: ICMPv6Error
        switch code {
        case EMSGSIZE:
            let length = Int(sends.frames[frame].innerLength)
            switch PathMTU(length: length, path: pathMTU) {
            case .fragment: return .fragment
            case .tooNarrow:
                counters.count(.uplinkNarrowPath)
                return .none
            case .tooBig(let mtu):
                counters.count(.uplinkTooBig)
                error = .packetTooBig(mtu: mtu)
            }
        // No route, or one that is unreachable, prohibited or a black hole: sit's dst_link_failure.
        case ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL: error = .addressUnreachable
        default: return .none
        }
        guard let made = answer(error, about: frame, memory: &memory) else { return .none }
        return .reply(offset: Int(made.offset), length: Int(made.length))
    }

    /// IPv4 inside: only a packet with DF of its own can be too big.
    private mutating func tooBigIPv4(frame: Int, pathMTU: Int, memory: inout PacketMemory) -> Remedy {
        let packet = invokingPacket(frame)
        let hasDF = IPv4View(memory.bytes.extracting(packet.head.range))?.dontFragment ?? false
        guard hasDF else { return .fragment }
        // Unknown: a step down that every path is likely to take, as with IPv6 inside, or what every host must reassemble.
        let length = Int(sends.frames[frame].innerLength)
        let guess = [IPv6Header.leastMTU, 576 - IPv4Header.minimumLength].first { $0 < length } ?? 0
        let mtu = pathMTU == 0 ? guess : pathMTU - IPv4Header.minimumLength
        counters.count(mtu < 68 && pathMTU != 0 ? .uplinkNarrowPath : .uplinkTooBig)
        guard mtu >= 68, beginsPacket(frame),
            let made = answers.make(
                FragmentationNeeded(mtu: UInt16(clamping: mtu)), about: packet, peer: sends.frames[frame].outer.destination,
                in: &memory, counters: &counters)
        else { return .none }
        return .reply(offset: Int(made.offset), length: Int(made.length))
    }

    /// An error about a frame of the batch for the underlay; where it says what.
    mutating func answer(_ error: ICMPv6Error, about frame: Int, memory: inout PacketMemory) -> Slice? {
        guard beginsPacket(frame) else { return nil }
        return answers.make(
            error, about: invokingPacket(frame), peer: sends.frames[frame].outer.destination, in: &memory, counters: &counters)
    }

    private func invokingPacket(_ frame: Int) -> InvokingPacket {
        let frame = sends.frames[frame]
        var packet = InvokingPacket(head: sends.slices[Int(frame.firstSlice)])
        if frame.sliceCount > 1 { packet.tail = sends.slices[Int(frame.firstSlice) + 1] }
        return packet
    }

    /// Whether a frame is a whole packet or a super-packet's first segment: an error about that one is enough, since none of the
    /// others is longer.
    func beginsPacket(_ frame: Int) -> Bool { frame == 0 || slot(ofSend: frame) != slot(ofSend: frame - 1) }

    /// Headers may lie in scratch memory, but payload is where the TUN's packet is, and each of those has a slot of its own.
    private func slot(ofSend frame: Int) -> Int {
        let frame = sends.frames[frame]
        return Int(sends.slices[Int(frame.firstSlice + frame.sliceCount) - 1].offset) / PacketMemory.slotSize
    }

    @inline(__always)
    mutating func delivered(frame: Int) {
        countDelivery(deliveries.frames[frame])
        if frame >= firstRetry { refuseMerging(isTCP: retryIsTCP[frame - firstRetry]) }
    }

    @inline(__always)
    mutating func countDelivery(_ frame: Frame) {
        counters.downlinkPackets &+= UInt64(frame.packetCount)
        counters.downlinkBytes &+= UInt64(frame.innerLength)
    }

    /// In `deliveries`.
    var hasMergedDatagrams: Bool {
        for index in 0..<deliveries.frames.count where deliveries.frames[index].isMergedDatagram { return true }
        return false
    }

    /// The TUN took packets one by one that it had refused together.
    mutating func refuseMerging(isTCP: Bool) {
        if !refusedMerging.add(isTCP: isTCP, at: Clock.nanoseconds) { return }
        if isTCP { counters.tcpMergingPauses &+= 1 } else { counters.udpMergingPauses &+= 1 }
    }

    mutating func refused(frame: Int, code: Int32) -> Bool {
        // Anything else is no word about merging: EIO is a TUN that is down (drivers/net/tun.c `tun_get_user`).
        if code != EINVAL || deliveries.frames[frame].packetCount == 1 { return false }
        counters.refusedMerges &+= 1
        refusals.append(UInt32(truncatingIfNeeded: frame))
        return true
    }
}
