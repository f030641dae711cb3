internal import CLinux
internal import Glibc
internal import Synchronization

/// What the guardians noted of packets that the kernel merged on arrival: their segment size, which a raw socket does not tell.
///
/// A guardian's filter sees each packet with what the kernel knows of it (`MergeNotesFilter`). Of merged packets that are not TCP it
/// puts the segment size and the first bytes into a queue of the kernel's, before a receiver has the packet. A worker that wants to
/// ask about packets of a batch takes what is in the queue into a table first (`collect`), which all workers share. Only unfinished
/// datagrams are asked about, which come from peers on the same machine and from the merging itself, not over a wire.
public final class MergeNotes: Sendable {
    public enum Note: Hashable, Sendable {
        /// The packet was not merged.
        case none
        /// It was, of segments with so many bytes of payload; the last one may have fewer.
        case segments(of: Int)
        /// Notes were lost, or two of them contradict each other.
        case unclear
    }

    /// Notes in the kernel's queue; when it is full, the oldest goes.
    private static var capacity: Int { 8192 }

    private let queue: Descriptor
    private let ipv6Filter: Descriptor
    private let ipv4Filter: Descriptor
    private let table = Mutex(MergeNoteTable(capacity: capacity))

    /// - Throws: EPERM without CAP_BPF, or CAP_SYS_ADMIN. All else here needs no capability.
    public init() throws(SystemError) {
        queue = Descriptor(
            try check("bpf(BPF_MAP_CREATE)", tund_bpf_queue(UInt32(MergeNotesFilter.noteLength), UInt32(Self.capacity))))
        ipv6Filter = try MergeNotesFilter(.ipv6, queue: queue.rawValue).load()
        ipv4Filter = try MergeNotesFilter(.ipv4, queue: queue.rawValue).load()
    }

    /// Makes a guardian take notes; like the filter it had, the new one takes no packet. The guardian must have been made after
    /// the receivers: the kernel shows a packet to the newest socket first.
    public func attach(to guardian: RawListener, _ inner: InnerProtocol) throws(SystemError) {
        for socket in guardian.rawDescriptors { try attach(to: socket, inner) }
    }

    func attach(to socket: Int32, _ inner: InnerProtocol) throws(SystemError) {
        var descriptor = inner == .ipv6 ? ipv6Filter.rawValue : ipv4Filter.rawValue
        let result = unsafe setsockopt(socket, SOL_SOCKET, SO_ATTACH_BPF, &descriptor, socklen_t(MemoryLayout<Int32>.size))
        try check("setsockopt(SO_ATTACH_BPF)", result)
    }

    /// Looks up a packet from a receiver, IPv4 header first, that was received before `collect` was last called. A note is good for
    /// one packet.
    /// - Parameter now: nanoseconds of the monotonic clock.
    public func find(_ packet: RawSpan, _ inner: InnerProtocol, at now: UInt64) -> Note {
        let length = MergeNotesFilter.headLength(inner)
        guard packet.byteCount >= length else { return .none }
        var head = MergeNoteTable.Head()
        for index in 0..<length / 8 {
            head[index] = unsafe packet.unsafeLoadUnaligned(fromByteOffset: index * 8, as: UInt64.self)
        }
        return table.withLock { $0.take(head, at: now) }
    }

    /// Puts what the guardians noted so far into the table.
    public func collect(at now: UInt64) { table.withLock { collect(into: &$0, at: now) } }

    /// Forgets notes of packets that nobody asks about (refused ones, lost ones). To be called once a second.
    public func tidy(at now: UInt64) {
        table.withLock { table in
            collect(into: &table, at: now)
            table.age(at: now)
        }
    }

    private func collect(into table: inout MergeNoteTable, at now: UInt64) {
        var note: (segmentSize: UInt64, head: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)) =
            (0, (0, 0, 0, 0, 0, 0, 0, 0))
        for _ in 0..<Self.capacity {
            if unsafe tund_bpf_pop(queue.rawValue, &note) < 0 {
                if errno == ENOENT { return }  // it is empty
                break
            }
            let head = note.head
            table.add(
                MergeNoteTable.Head(head.0, head.1, head.2, head.3, head.4, head.5, head.6, head.7),
                segmentSize: note.segmentSize, at: now)
        }
        // It was full, and the oldest may be gone; or some could not be had.
        table.isIncomplete(at: now)
    }
}

/// Notes that nobody asked about yet.
struct MergeNoteTable {
    /// The beginning of a packet as the raw socket shows it: outer header, inner addresses, ports. With the IPv4 identification in
    /// it two alike are rare, unless the sender leaves that 0 (RFC 6864).
    typealias Head = SIMD8<UInt64>

    /// How long a packet may wait in a receive buffer before its note is forgotten, in nanoseconds.
    static var patience: UInt64 { 1_000_000_000 }

    private struct Entry {
        /// nil: two notes of packets that begin alike differ.
        var segmentSize: UInt64?
        var count: Int
    }

    private let capacity: Int
    /// Notes of packets that nobody asks about (refused ones, lost ones) go in time: what is `young` becomes `old`, and what was
    /// old is forgotten.
    private var young: [Head: Entry] = [:]
    private var old: [Head: Entry] = [:]
    private var turnedOver: UInt64 = 0
    /// Until then, a packet without a note may have had one.
    private var incompleteUntil: UInt64 = 0

    init(capacity: Int) { self.capacity = capacity }

    mutating func add(_ head: Head, segmentSize: UInt64, at now: UInt64) {
        age(at: now)
        if young.count >= capacity {
            if !old.isEmpty { isIncomplete(at: now) }
            turnOver(at: now)
        }
        var entry = young[head] ?? Entry(segmentSize: segmentSize, count: 0)
        if entry.segmentSize != segmentSize { entry.segmentSize = nil }
        if let other = old[head]?.segmentSize, other != segmentSize {
            entry.segmentSize = nil
            old[head]?.segmentSize = nil
        }
        entry.count += 1
        young[head] = entry
    }

    mutating func age(at now: UInt64) {
        // Threads read the clock before they wait for the lock: it may seem to go back.
        if now > turnedOver &+ Self.patience { turnOver(at: now) }
    }

    mutating func isIncomplete(at now: UInt64) { incompleteUntil = now &+ Self.patience }

    mutating func take(_ head: Head, at now: UInt64) -> MergeNotes.Note {
        guard let entry = Self.take(head, from: &old) ?? Self.take(head, from: &young) else {
            return now < incompleteUntil ? .unclear : .none
        }
        return entry.segmentSize.map { .segments(of: Int($0)) } ?? .unclear
    }

    private mutating func turnOver(at now: UInt64) {
        old = young
        young.removeAll(keepingCapacity: true)
        turnedOver = now
    }

    private static func take(_ head: Head, from notes: inout [Head: Entry]) -> Entry? {
        guard let entry = notes[head] else { return nil }
        notes[head] = entry.count > 1 ? Entry(segmentSize: entry.segmentSize, count: entry.count - 1) : nil
        return entry
    }
}
