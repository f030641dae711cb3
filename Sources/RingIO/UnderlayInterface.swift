internal import CLinux
internal import Glibc
internal import Synchronization

/// The one interface that the tunnel's packets go through (`--dev`), as the sockets know it: by index, since a name may change. An
/// interface that was made anew has another index.
///
/// Sending sockets are bound to it (SO_BINDTOIFINDEX). A receiving one cannot be bound to another interface later: that takes CAP_NET_RAW,
/// unless it is disconnected, and then no packet finds it any more (`__udp_disconnect`). So its filter looks where a packet came
/// from. Only in a VRF, where the filter sees the VRF in place of the interface, receiving sockets are bound, once and for all.
public final class UnderlayInterface: Sendable {
    private let current: Atomic<Int32>
    /// Whether it can be followed to another index.
    public let isFollowed: Bool
    private let gate: InterfaceGate?

    /// - Parameters:
    ///   - isInVRF: it is a VRF, or part of one.
    ///   - gate: of the extended filters, where there are any.
    public init(index: Int32, isInVRF: Bool, gate: InterfaceGate? = nil) {
        current = Atomic(index)
        isFollowed = !isInVRF
        self.gate = isInVRF ? nil : gate
        self.gate?.index = index
    }

    public var index: Int32 { current.load(ordering: .relaxed) }

    /// It was made anew. The sockets follow when they are bound again.
    public func become(_ index: Int32) {
        current.store(index, ordering: .relaxed)
        gate?.index = index
    }
}

/// Where the extended filters of receiving sockets find the interface that packets are to come from: a number in memory that is shared
/// with the kernel, so that it can be changed when no capability is left to load another program (a map of type array with
/// BPF_F_MMAPABLE, Linux 5.5).
@safe
public final class InterfaceGate: @unchecked Sendable {
    let map: Descriptor
    private let memory: UnsafeMutableRawPointer
    private let length: Int

    /// Open to packets from everywhere.
    /// - Throws: EPERM without CAP_BPF, or CAP_SYS_ADMIN.
    public init() throws(SystemError) {
        let map = Descriptor(try check("bpf(BPF_MAP_CREATE)", tund_bpf_shared_number()))
        length = sysconf(Int32(_SC_PAGESIZE))
        let mapped = unsafe mmap(nil, length, PROT_READ | PROT_WRITE, MAP_SHARED, map.rawValue, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else { throw SystemError("mmap of a filter's number") }
        unsafe memory = mapped
        self.map = map
    }

    deinit { unsafe munmap(memory, length) }

    /// 0: any.
    var index: Int32 {
        get { unsafe memory.assumingMemoryBound(to: Atomic<Int32>.self).pointee.load(ordering: .relaxed) }
        set { unsafe memory.assumingMemoryBound(to: Atomic<Int32>.self).pointee.store(newValue, ordering: .relaxed) }
    }
}
