internal import Glibc

/// The memory of one worker's packets: equal slots in one mapping, so that a packet is an offset and a length, and the slot
/// it lies in a division.
@safe
public struct PacketMemory: ~Copyable, @unchecked Sendable {
    /// A slot holds the longest packet with what stands before it: 65,575 bytes of IPv6 behind 10 of virtio-net header, or
    /// an IPv4 packet of 65,535. A buffer of 64 KiB exactly would cut the longest TUN read silently. 17 pages.
    public static let slotSize = 17 * 4096

    let base: UnsafeMutableRawPointer
    public let slotCount: Int
    /// Room behind the slots for headers that belong to no slot.
    public let scratch: Range<Int>
    var byteCount: Int { scratch.upperBound }

    /// - Parameter scratch: bytes of it.
    public init(slotCount: Int, scratch: Int = 0) throws(SystemError) {
        let slots = slotCount * Self.slotSize
        let size = slots + scratch
        let memory = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let memory = unsafe memory, unsafe memory != MAP_FAILED else {
            throw SystemError("mmap of \(size) bytes for packets")
        }
        unsafe base = memory
        self.slotCount = slotCount
        self.scratch = slots..<size
    }

    deinit { unsafe munmap(base, byteCount) }

    @inline(__always)
    func address(ofSlot slot: Int) -> UnsafeMutableRawPointer {
        unsafe base + slot &* Self.slotSize
    }

    @inline(__always)
    static func slot(at offset: Int) -> Int { offset / slotSize }

    /// All of it. Offsets of arrivals and frames count from its start.
    public var bytes: RawSpan {
        @_lifetime(borrow self)
        get { unsafe _overrideLifetime(RawSpan(_unsafeStart: base, byteCount: byteCount), borrowing: self) }
    }

    public var mutableBytes: MutableRawSpan {
        @_lifetime(&self)
        mutating get { unsafe _overrideLifetime(MutableRawSpan(_unsafeStart: base, byteCount: byteCount), mutating: &self) }
    }
}
