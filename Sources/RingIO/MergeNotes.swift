internal import CLinux
internal import Glibc

/// What was noted of packets that the kernel merged on arrival for one worker: their segment size, which a raw socket does not
/// tell.
///
/// The filter of a receiver sees each packet with what the kernel knows of it. `MergeNotesFilter` takes the same packets as the
/// filter that it replaces, and of merged ones writes down the segment size and the first bytes, before the socket has the packet.
/// The worker reads along (`collect`) and asks when it has the packet itself (`take`).
///
/// A packet may wait in the socket as long as the worker gets no CPU, so notes do not age by the clock: what nobody asked about
/// (packets that were lost between filter and socket) is forgotten once the socket was empty, twice.
public final class MergeNotes: @unchecked Sendable {
    public enum Note: Hashable, Sendable {
        /// The packet was not merged.
        case none
        /// It was, of segments with so many bytes of payload; the last one may have fewer.
        case segments(of: Int)
        /// Notes were lost, or two of them contradict each other.
        case unclear
    }

    private final class Filter: Sendable {
        let inner: InnerProtocol
        let descriptor: Descriptor

        init(_ inner: InnerProtocol, _ descriptor: consuming Descriptor) {
            self.inner = inner
            self.descriptor = descriptor
        }
    }

    /// Least time between two looks whether the receivers are empty, in nanoseconds. A note is written down a moment before its
    /// packet is in the socket, and a CPU may be taken away in between.
    private static var restBetweenLooks: UInt64 { 1_000_000_000 }

    private let filters: [Filter]
    private var ring: NoteRing
    private var table = MergeNoteTable(capacity: NoteRing.capacity)
    private var isUnwritten = false
    /// Two at most for each protocol inside; -1: none.
    private var receivers = InlineArray<4, Int32>(repeating: -1)
    private var lastLook: UInt64 = 0

    /// - Throws: EPERM without CAP_BPF, or CAP_SYS_ADMIN. All else here needs no capability.
    public init(
        of worker: Int = 0, among workers: Int = 1, carrying inner: [InnerProtocol] = [.ipv6], gate: InterfaceGate? = nil
    ) throws(SystemError) {
        let ring = try NoteRing()
        var filters: [Filter] = []
        for inner in inner {
            let flows = SocketFilter.flows(of: worker, among: workers, inner)
            let filter = try MergeNotesFilter(flows, inner, ring: ring.descriptor.rawValue, gate: gate).load()
            filters.append(Filter(inner, filter))
        }
        self.filters = filters
        self.ring = ring
    }

    /// Receivers of the worker that will have the filter, to be looked at whether they are empty. Before the worker runs.
    func watch(_ sockets: [Int32]) {
        for socket in sockets {
            guard let place = receivers.indices.first(where: { receivers[$0] < 0 }) else { preconditionFailure("more receivers") }
            receivers[place] = socket
        }
    }

    /// Makes a receiver of the worker take the worker's flows, with notes. What it received before has none.
    func attach(to receiver: Int32, _ inner: InnerProtocol) throws(SystemError) {
        guard var descriptor = filters.first(where: { $0.inner == inner })?.descriptor.rawValue else { return }
        let result = unsafe setsockopt(
            receiver, SOL_SOCKET, SO_ATTACH_BPF, &descriptor, socklen_t(MemoryLayout<Int32>.size))
        try check("setsockopt(SO_ATTACH_BPF)", result)
    }

    // MARK: By the worker

    /// Reads what was noted so far.
    /// - Returns: whether there is any note: else no packet that was received before was merged.
    @inline(__always)
    public func collect() -> Bool {
        if ring.isEmpty && table.isEmpty { return false }
        readNotes()
        return true
    }

    private func readNotes() {
        isUnwritten = false
        reading: while true {
            switch ring.read() {
            case .none: break reading
            case .unwritten:
                isUnwritten = true
                break reading
            case .note(let note):
                table.add(MergeNotesFilter.head(of: note), segmentSize: MergeNotesFilter.segmentSize(of: note))
            }
        }
        if ring.release() { table.isIncomplete() }
    }

    /// Takes the note of a packet from a receiver, IPv4 header first, that was received before `collect` was last called.
    public func take(_ packet: RawSpan, _ inner: InnerProtocol) -> Note {
        guard packet.byteCount >= MergeNotesFilter.headLength(inner) else { return .none }
        let note = table.take(MergeNotesFilter.head(of: packet, inner))
        return note == .none && isUnwritten ? .unclear : note
    }

    /// Forgets what nobody can ask about any more. To be called when all that was received has been asked about.
    /// - Parameter now: nanoseconds of the monotonic clock.
    public func settle(at now: UInt64) {
        if table.isEmpty || now < lastLook &+ Self.restBetweenLooks { return }
        lastLook = now
        for index in receivers.indices where !RawSocket.isEmpty(receivers[index]) { return }
        table.forgetOld()
    }
}

extension RawSocket {
    /// Whether no packet waits in a receiver, or there is none.
    static func isEmpty(_ receiver: Int32) -> Bool {
        if receiver < 0 { return true }
        var allocated: UInt32 = 0  // SK_MEMINFO_RMEM_ALLOC of <linux/sock_diag.h>, the first one
        var length = socklen_t(MemoryLayout<UInt32>.size)
        return unsafe getsockopt(receiver, SOL_SOCKET, SO_MEMINFO, &allocated, &length) == 0 && allocated == 0
    }
}
