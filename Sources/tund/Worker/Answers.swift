internal import Glibc
internal import RingIO
internal import TunnelCore

/// The ICMP errors that one thread sends inward, no more of them than the limits allow.
///
/// Packet Too Big has limits of its own: a source that is not told keeps sending what cannot arrive, so forged ICMPv4 errors must
/// not use them up, and every flow to a peer needs one. The kernel does not limit it at all. The other errors have the kernel's
/// limits (net.ipv4.icmp_msgs_per_sec, and a burst of six at a time), but ten times as many for each peer, since many
/// sources may share one.
struct Answers: ~Copyable {
    var source: IPv6Address
    /// Where in the packet memory they are made.
    private let room: Int
    private var packetTooBig: AnswerLimit
    private var others: AnswerLimit

    /// - Parameters:
    ///   - room: `ICMPv6Error.longest` bytes that nothing else uses.
    ///   - threads: that share the limits of all peers.
    init(from source: IPv6Address, room: Int, threads: Int = 1) {
        self.source = source
        self.room = room
        let share = max(1, 1000 / threads)
        packetTooBig = AnswerLimit(
            perPeer: .init(perSecond: 100, burst: 100), all: .init(perSecond: share, burst: share))
        others = AnswerLimit(perPeer: .init(perSecond: 10, burst: 60), all: .init(perSecond: share, burst: share))
    }

    /// - Parameter peer: the underlay host that the packet was for.
    /// - Returns: where in the memory the error is, virtio-net header first; nil where none is to be sent.
    mutating func make(
        _ error: ICMPv6Error, about packet: InvokingPacket, peer: IPv4Address, in memory: inout PacketMemory,
        counters: inout Counters
    ) -> Slice? {
        guard error.isDue(about: packet, in: memory.bytes) else { return nil }
        let isTooBig = error.type == ICMPv6Type.packetTooBig
        let now = Clock.nanoseconds
        guard isTooBig ? packetTooBig.allows(peer, at: now) : others.allows(peer, at: now) else {
            counters.heldBackErrors &+= 1
            return nil
        }
        var bytes = memory.mutableBytes
        guard let made = error.emit(about: packet, from: source, in: &bytes, at: room) else { return nil }
        switch error.type {
        case ICMPv6Type.packetTooBig: counters.packetTooBigs &+= 1
        case ICMPv6Type.timeExceeded: counters.timeExceededs &+= 1
        default: counters.unreachables &+= 1
        }
        return made
    }

    /// The same of an IPv4 packet with DF that is too big.
    mutating func make(
        _ error: FragmentationNeeded, about packet: InvokingPacket, peer: IPv4Address, in memory: inout PacketMemory,
        counters: inout Counters
    ) -> Slice? {
        guard error.isDue(about: packet, in: memory.bytes) else { return nil }
        guard packetTooBig.allows(peer, at: Clock.nanoseconds) else {
            counters.heldBackErrors &+= 1
            return nil
        }
        var bytes = memory.mutableBytes
        guard let made = error.emit(about: packet, in: &bytes, at: room) else { return nil }
        counters.packetTooBigs &+= 1
        return made
    }
}
