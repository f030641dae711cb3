/// Where an engine puts what happened in a turn. Offsets count from the start of the packet memory.
public protocol PacketSink: ~Copyable {
    /// A virtio-net header and a packet, read from the TUN.
    mutating func fromTun(offset: Int, length: Int)
    /// A packet of the underlay, from its IPv4 header on.
    mutating func fromUnderlay(offset: Int, length: Int)
    /// A frame has left for the underlay: bytes of the inner packet.
    mutating func sent(bytes: Int)
    /// A frame was taken by the TUN: bytes of the inner packet.
    mutating func delivered(bytes: Int)
}

/// How a turn of the loop ended.
public enum EngineState: Hashable, Sendable {
    case running
    /// Somebody raised the wake-up.
    case wokenUp
    /// The TUN device was deleted.
    case tunGone
}

/// What moves a worker's packets between the TUN, the underlay and its packet memory. The worker is generic over it, so a
/// second one (for kernels without io_uring) is a second conforming type and costs the first nothing.
///
/// Per direction, one batch is under way at a time: frames are queued only while the earlier ones are done (`canSend`,
/// `canDeliver`). So packets never overtake each other, and when the underlay cannot take more, the TUN's queue fills: the
/// sender feels it where a full link would make itself felt.
public protocol PacketEngine: ~Copyable {
    var memory: PacketMemory { get set }

    /// By the thread that will call `turn`, once.
    mutating func start() throws(SystemError)
    /// By the same thread, when it will not call `turn` again: everything under way ends, and the TUN is let go of.
    mutating func finish()
    /// Submits what is queued, waits until something happens and reports it.
    mutating func turn(_ sink: inout some PacketSink & ~Copyable) throws(SystemError) -> EngineState

    var canSend: Bool { get }
    var canDeliver: Bool { get }
    /// The next piece of the frame being put together.
    mutating func addSlice(offset: Int, length: Int)
    /// Queues the frame for the underlay host `destination` (host order).
    mutating func send(to destination: UInt32, ttl: UInt8, tos: UInt8)
    /// Queues the frame, virtio-net header first, for the TUN.
    mutating func deliver()
    /// The packet at this offset is finished with; its slot may be filled again.
    mutating func release(offset: Int)
}
