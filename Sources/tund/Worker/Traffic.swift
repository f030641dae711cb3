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
    /// The TUN took packets one by one that it had refused together.
    var refusesMergedTCP = false
    var refusesMergedUDP = false
    var counters = Counters()

    /// - Parameters:
    ///   - slots: of the engine's memory; a packet waits in a slot.
    ///   - sends: the most frames and slices in a batch for the underlay.
    ///   - scratch: where headers may be written.
    init(slots: Int, sends: (frames: Int, slices: Int), scratch: Range<Int>) {
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

    @inline(__always)
    mutating func delivered(frame: Int) {
        let delivered = deliveries.frames[frame]
        counters.downlinkPackets &+= UInt64(delivered.packetCount)
        counters.downlinkBytes &+= UInt64(delivered.innerLength)
        if frame >= firstRetry {
            if retryIsTCP[frame - firstRetry] { refusesMergedTCP = true } else { refusesMergedUDP = true }
        }
    }

    mutating func refused(frame: Int, code: Int32) -> Bool {
        if deliveries.frames[frame].packetCount == 1 { return false }
        counters.refusedMerges &+= 1
        refusals.append(UInt32(truncatingIfNeeded: frame))
        return true
    }
}
