internal import CLinux
internal import Glibc
internal import Synchronization

/// The reader's end of a ring buffer of the kernel's (BPF_MAP_TYPE_RINGBUF, kernel/bpf/ringbuf.c), in which every record is a note.
/// All of it is shared memory: to look costs no system call.
///
///     1 page                1 page                `size` bytes, twice in a row
///     +--------------------+--------------------+------------------------------+
///     | reader's position  | writers' position  | records: header, note; ...   |
///     +--------------------+--------------------+------------------------------+
@safe
struct NoteRing: ~Copyable, @unchecked Sendable {
    /// The first bytes of a packet as the raw socket shows it: outer header, inner addresses, ports. In the place of the IPv4
    /// header's checksum stands the segment size, in the machine's byte order.
    typealias Note = SIMD8<UInt64>

    /// Bytes, a power of two: for as many notes as there may be merged packets in a full receive buffer, whose accounts charge
    /// more than a kilobyte for the least of them.
    static var size: Int { 1 << 20 }
    private static var recordLength: UInt64 { UInt64(Int(tund_bpf_record_header) + MemoryLayout<Note>.size) }
    static var capacity: Int { size / Int(recordLength) }

    let descriptor: Descriptor
    private let readersPage: SharedMapping
    private let writersPage: SharedMapping
    private var readersPosition: UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe readersPage.base.assumingMemoryBound(to: Atomic<UInt64>.self)
    }
    private var writersPosition: UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe writersPage.base.assumingMemoryBound(to: Atomic<UInt64>.self)
    }
    private let records: UnsafeMutableRawPointer
    private var position: UInt64 = 0
    private var released: UInt64 = 0

    init() throws(SystemError) {
        let descriptor = Descriptor(try check("bpf(BPF_MAP_CREATE)", tund_bpf_ring_buffer(UInt32(Self.size))))
        let page = sysconf(Int32(_SC_PAGESIZE))
        let readersPage = try SharedMapping(of: descriptor.rawValue, 0..<page, PROT_READ | PROT_WRITE)
        let writersPage = try SharedMapping(of: descriptor.rawValue, page..<2 * (page + Self.size), PROT_READ)
        unsafe records = writersPage.base + page
        self.descriptor = descriptor
        self.readersPage = readersPage
        self.writersPage = writersPage
    }

    var isEmpty: Bool { unsafe writersPosition.pointee.load(ordering: .acquiring) == position }

    enum Reading {
        case note(Note)
        case none
        /// Another CPU is just writing it.
        case unwritten
    }

    mutating func read() -> Reading {
        if isEmpty { return .none }
        let record = unsafe records + Int(position & UInt64(Self.size - 1))
        let header = unsafe record.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(ordering: .acquiring)
        if header & tund_bpf_busy != 0 { return .unwritten }
        let note = unsafe (record + Int(tund_bpf_record_header)).loadUnaligned(as: Note.self)
        position &+= Self.recordLength
        return .note(note)
    }

    /// Gives the room of what was read back.
    /// - Returns: whether a note may have found none before (`__bpf_ringbuf_reserve`).
    mutating func release() -> Bool {
        unsafe readersPosition.pointee.store(position, ordering: .sequentiallyConsistent)
        // Only now: whoever found no room had the old position before it, and what it then found is written.
        let used = unsafe writersPosition.pointee.load(ordering: .sequentiallyConsistent) &- released
        released = position
        return used &+ Self.recordLength >= UInt64(Self.size)
    }
}

/// Memory that the kernel writes to as well.
@safe
private struct SharedMapping: ~Copyable {
    let base: UnsafeMutableRawPointer
    private let length: Int

    init(of descriptor: Int32, _ range: Range<Int>, _ protection: Int32) throws(SystemError) {
        let mapped = unsafe mmap(nil, range.count, protection, MAP_SHARED, descriptor, range.lowerBound)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else { throw SystemError("mmap of the notes' ring") }
        unsafe base = mapped
        length = range.count
    }

    deinit { unsafe munmap(base, length) }
}
