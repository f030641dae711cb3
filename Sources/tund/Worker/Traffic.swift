internal import RingIO
internal import TunnelCore

/// What a turn brought: packets that wait for their stage, and the counters of all that is done with.
struct Traffic: PacketSink, ~Copyable {
    var uplink: FixedList<Slice>
    var downlink: FixedList<Slice>
    var counters = Counters()

    /// - Parameter capacity: no fewer than the engine has slots; a packet waits in a slot.
    init(capacity: Int) {
        uplink = FixedList(capacity: capacity)
        downlink = FixedList(capacity: capacity)
    }

    @inline(__always)
    mutating func fromTun(offset: Int, length: Int) { uplink.append(Slice(offset: offset, length: length)) }

    @inline(__always)
    mutating func fromUnderlay(offset: Int, length: Int) { downlink.append(Slice(offset: offset, length: length)) }

    @inline(__always)
    mutating func sent(bytes: Int) {
        counters.uplinkPackets &+= 1
        counters.uplinkBytes &+= UInt64(truncatingIfNeeded: bytes)
    }

    @inline(__always)
    mutating func delivered(bytes: Int) {
        counters.downlinkPackets &+= 1
        counters.downlinkBytes &+= UInt64(truncatingIfNeeded: bytes)
    }
}
