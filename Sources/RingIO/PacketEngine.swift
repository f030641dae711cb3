/// Where an engine puts what happened in a turn. Offsets count from the start of the packet memory.
public protocol PacketSink: ~Copyable {
    /// A virtio-net header and a packet, read from the TUN.
    mutating func fromTun(offset: Int, length: Int)
    /// A packet of the underlay, from its IPv4 header on.
    mutating func fromUnderlay(offset: Int, length: Int)
    /// A frame of the batch under way has left for the underlay. Frames are numbered from 0 as they were queued.
    mutating func sent(frame: Int)
    /// The underlay did not take a frame of that batch.
    /// - Parameters:
    ///   - code: why; EMSGSIZE for one that must not be fragmented and is longer than its path takes.
    ///   - pathMTU: with EMSGSIZE, what the path takes; 0 where the kernel did not say.
    mutating func unsent(frame: Int, code: Int32, pathMTU: Int, memory: inout PacketMemory) -> Remedy
    /// A frame was taken by the TUN.
    mutating func delivered(frame: Int)
    /// The TUN refused a frame. If the sink answers true, the frame's slots stay as they are until it calls `forget`.
    mutating func refused(frame: Int, code: Int32) -> Bool
}

/// What is to be done about a frame that could not be sent.
public enum Remedy: Hashable, Sendable {
    /// It is lost.
    case none
    /// It goes without DF: IPv4 may fragment it.
    case fragment
    /// It is lost, and this packet goes to the TUN, virtio-net header first.
    case reply(offset: Int, length: Int)
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
    /// Most frames, and slices of all frames, in a batch for the underlay.
    var sendCapacity: (frames: Int, slices: Int) { get }
    /// The next piece of the frame for the underlay that is being put together.
    mutating func addSendSlice(offset: Int, length: Int)
    /// Queues that frame for the underlay host `destination` (host order).
    /// - Parameter dontFragment: DF; else IPv4 may fragment it.
    mutating func send(to destination: UInt32, ttl: UInt8, tos: UInt8, dontFragment: Bool, carrying inner: InnerProtocol)
    /// The next piece of the frame for the TUN that is being put together.
    mutating func addDeliverySlice(offset: Int, length: Int)
    /// Queues that frame, virtio-net header first.
    mutating func deliver()
    /// Hands that frame to the TUN at once; its slots are free afterwards. Only while no batch is under way.
    /// - Returns: whether the TUN took it.
    mutating func deliverAtOnce() -> Bool
    /// Hands one packet to the TUN at once, past the batch: for what is rare.
    /// - Returns: whether the TUN took it.
    @discardableResult
    mutating func reply(offset: Int, length: Int) -> Bool
    /// Ends a frame that the sink kept when it was refused.
    mutating func forget(frame: Int)
    /// The packet at this offset is finished with; its slot may be filled again.
    mutating func release(offset: Int)
}
