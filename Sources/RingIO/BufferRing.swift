internal import CLiburing
internal import Glibc

/// Slots of the packet memory that the kernel may fill as packets come: a provided-buffer ring (Linux 5.19). Shared memory
/// with the kernel; handing a slot over costs no system call.
@safe
struct BufferRing: ~Copyable, @unchecked Sendable {
    /// The id under which requests name this ring.
    let group: UInt16
    let entries: Int
    /// Slots in the kernel's hands.
    private(set) var available = 0
    private let ring: UnsafeMutablePointer<io_uring_buf_ring>
    private var added: Int32 = 0

    private static func byteCount(_ entries: Int) -> Int { entries * MemoryLayout<io_uring_buf>.stride }

    /// - Parameter entries: a power of two.
    init(group: UInt16, entries: Int, in uring: borrowing Ring) throws(SystemError) {
        let size = Self.byteCount(entries)
        let memory = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let memory = unsafe memory, unsafe memory != MAP_FAILED else { throw SystemError("mmap") }
        do {
            unsafe try uring.register(bufferRing: memory, entries: UInt32(entries), group: group)
        } catch {
            unsafe munmap(memory, size)
            throw error
        }
        unsafe ring = memory.assumingMemoryBound(to: io_uring_buf_ring.self)
        unsafe io_uring_buf_ring_init(ring)
        self.group = group
        self.entries = entries
    }

    /// The ring that it is registered with must be gone by then.
    deinit { unsafe munmap(ring, Self.byteCount(entries)) }

    /// Hands a slot to the kernel, at the next `publish`.
    @inline(__always)
    mutating func add(_ slot: Int, of memory: borrowing PacketMemory) {
        unsafe io_uring_buf_ring_add(
            ring, memory.address(ofSlot: slot), UInt32(PacketMemory.slotSize), UInt16(truncatingIfNeeded: slot),
            io_uring_buf_ring_mask(UInt32(truncatingIfNeeded: entries)), added)
        added &+= 1
    }

    @inline(__always)
    mutating func publish() {
        if added == 0 { return }
        unsafe io_uring_buf_ring_advance(ring, added)
        available &+= Int(added)
        added = 0
    }

    /// The kernel filled one.
    @inline(__always)
    mutating func took() { available &-= 1 }
}
