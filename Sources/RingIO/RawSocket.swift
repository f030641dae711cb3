internal import CLinux
internal import Glibc

/// What all sockets of one tunnel have in common from the moment they are made.
public struct UnderlayScope: Sendable {
    /// Point to point: the only host that packets come from, in host order.
    public var remote: UInt32?
    /// Only through this interface or VRF, where one is named.
    public var interface: UnderlayInterface?
    /// Of the packets sent, for routing rules and netfilter; 0: none.
    public var mark: UInt32
    /// Whether the kernel takes note of what ICMP errors about the packets say of their path's MTU.
    public var learnsPathMTU: Bool

    public init(
        remote: UInt32? = nil, interface: UnderlayInterface? = nil, mark: UInt32 = 0, learnsPathMTU: Bool = true
    ) {
        self.remote = remote
        self.interface = interface
        self.mark = mark
        self.learnsPathMTU = learnsPathMTU
    }
}

/// What a socket's packets carry; the raw value is the protocol number of their IPv4 header.
public enum InnerProtocol: Int32, Sendable {
    case ipv4 = 4
    case ipv6 = 41
}

/// A raw IPv4 socket of protocol 41 or 4. Making one takes CAP_NET_RAW; giving it an address, later and again and again, takes no
/// capability.
///
/// It takes no packet before it has an address and its filter: a new raw socket receives at once, from everywhere.
final class RawSocket: Sendable {
    private let descriptor: Descriptor
    var rawDescriptor: Int32 { descriptor.rawValue }
    /// Which it is bound to, and which `disconnect` forgets; nil: none.
    private let interface: UnderlayInterface?

    /// The local address before a real one is given: no host has it, and a packet from it leaves no interface but lo
    /// (`__mkroute_output` refuses it with EINVAL).
    static var nobody: UInt32 { 0x7F29_2929 }

    /// A socket that takes nothing.
    /// - Parameter isListed: whether packets and ICMP errors find it. For one that only sends they need not, and each listed socket
    ///   costs every packet of this host a little.
    init(_ inner: InnerProtocol, _ scope: UnderlayScope, isListed: Bool) throws(SystemError) {
        let socket = Glibc.socket(AF_INET, tund_SOCK_RAW | tund_SOCK_CLOEXEC, inner.rawValue)
        descriptor = Descriptor(try check("socket(AF_INET, SOCK_RAW, \(inner.rawValue))", socket))
        try SocketFilter.nothing.attach(to: socket)
        interface = scope.interface.flatMap { isListed && $0.isFollowed ? nil : $0 }
        // Before the address: a VRF has addresses of its own.
        try bindToInterface()
        if scope.mark != 0 { try set(SOL_SOCKET, SO_MARK, Int32(bitPattern: scope.mark), "SO_MARK") }
        if !isListed { try disconnect() }
        try bindToNobody()
    }

    // MARK: Address

    /// The local address, in host order.
    var localAddress: UInt32 { unsafe name(getsockname) ?? 0 }

    var isConnected: Bool { unsafe name(getpeername) != nil }

    /// - Throws: EADDRNOTAVAIL if this host has no such address; EINVAL if the socket is connected.
    func bind(to local: UInt32) throws(SystemError) {
        try unsafe check("bind", Self.withAddress(local) { unsafe Glibc.bind(descriptor.rawValue, $0, $1) })
    }

    /// - Throws: ENETUNREACH and the like if there is no route.
    func connect(to remote: UInt32) throws(SystemError) {
        try unsafe check("connect", Self.withAddress(remote, port: 1) { unsafe Glibc.connect(descriptor.rawValue, $0, $1) })
    }

    /// The kernel forgets the socket's addresses and its interface then, which is set again here, and takes the socket off its list
    /// (`__udp_disconnect`): packets and ICMP errors do not find it any more, whatever it is bound or connected to.
    func disconnect() throws(SystemError) {
        var nobody = sockaddr(sa_family: sa_family_t(AF_UNSPEC), sa_data: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
        let result = unsafe Glibc.connect(descriptor.rawValue, &nobody, socklen_t(MemoryLayout<sockaddr>.size))
        try check("connect(AF_UNSPEC)", result)
        // Needs no capability where none is set (Linux 5.7).
        try bindToInterface()
    }

    private func bindToInterface() throws(SystemError) {
        if let interface { try set(SOL_SOCKET, SO_BINDTOIFINDEX, interface.index, "SO_BINDTOIFINDEX") }
    }

    /// Whether the interface that it is bound to has been made anew.
    var isBoundElsewhere: Bool {
        guard let interface else { return false }
        return Self.option(SOL_SOCKET, SO_BINDTOIFINDEX, of: descriptor.rawValue) != interface.index
    }

    func bindToNobody() throws(SystemError) {
        // lo may be down, and a VRF has no such address.
        try set(Int32(IPPROTO_IP), IP_FREEBIND, 1, "IP_FREEBIND")
        try bind(to: Self.nobody)
        try set(Int32(IPPROTO_IP), IP_FREEBIND, 0, "IP_FREEBIND")
    }

    /// - Parameter port: means nothing here, but without one `inet_getname` takes a connected socket for an unconnected one.
    static func socketAddress(_ address: UInt32, port: UInt16 = 0) -> sockaddr_in {
        sockaddr_in(
            sin_family: sa_family_t(AF_INET), sin_port: port.bigEndian, sin_addr: in_addr(s_addr: address.bigEndian),
            sin_zero: (0, 0, 0, 0, 0, 0, 0, 0))
    }

    private static func withAddress(
        _ address: UInt32, port: UInt16 = 0, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = socketAddress(address, port: port)
        return unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    private func name(_ get: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32) -> UInt32? {
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = unsafe withUnsafeMutablePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe get(descriptor.rawValue, $0, &length) }
        }
        return result == 0 ? UInt32(bigEndian: address.sin_addr.s_addr) : nil
    }

    // MARK: Options

    func set(_ level: Int32, _ option: Int32, _ value: Int32, _ name: String) throws(SystemError) {
        var value = value
        let result = unsafe setsockopt(descriptor.rawValue, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
        try check("setsockopt(\(name))", result)
    }

    private static func option(_ level: Int32, _ option: Int32, of socket: Int32) -> Int32? {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return unsafe getsockopt(socket, level, option, &value, &length) == 0 ? value : nil
    }

    /// Makes a buffer larger than this host's limit allows, where the process may: the capability counts in the first user
    /// namespace only.
    /// - Returns: what is missing, where it may not.
    func enlarge(_ buffer: SocketBuffer, to bytes: Int32) throws(SystemError) -> BufferShortage? {
        do throws(SystemError) {
            try set(SOL_SOCKET, buffer.force, bytes, buffer.forceName)
            return nil
        } catch {
            if error.code != EPERM { throw error }
        }
        try set(SOL_SOCKET, buffer.plain, bytes, buffer.plainName)
        // The kernel doubles what it is told, for its own structures.
        let granted = (Self.option(SOL_SOCKET, buffer.plain, of: descriptor.rawValue) ?? 0) / 2
        return granted < bytes ? BufferShortage(buffer: buffer, wanted: Int(bytes), granted: Int(granted)) : nil
    }

    /// Throws away what came before the filter stood.
    func drain() {
        var byte: UInt8 = 0
        while unsafe recv(descriptor.rawValue, &byte, 1, Int32(MSG_DONTWAIT)) >= 0 {}
    }

    /// Packets that the kernel did not queue because the buffer was full. It counts them before it asks the filter, so beside other
    /// workers' sockets this is an upper bound.
    var overflows: UInt64 {
        var information = [UInt32](repeating: 0, count: 16)
        var length = socklen_t(information.count * MemoryLayout<UInt32>.size)
        let drops = 8  // SK_MEMINFO_DROPS of <linux/sock_diag.h>
        guard unsafe getsockopt(descriptor.rawValue, SOL_SOCKET, SO_MEMINFO, &information, &length) == 0,
            Int(length) > drops * MemoryLayout<UInt32>.size
        else { return 0 }
        return UInt64(information[drops])
    }
}

/// One of a socket's two buffers.
public enum SocketBuffer: Hashable, Sendable {
    case receive
    case send

    /// What limits it.
    public var sysctl: String { self == .receive ? "net.core.rmem_max" : "net.core.wmem_max" }
    fileprivate var force: Int32 { self == .receive ? SO_RCVBUFFORCE : SO_SNDBUFFORCE }
    fileprivate var plain: Int32 { self == .receive ? SO_RCVBUF : SO_SNDBUF }
    fileprivate var forceName: String { self == .receive ? "SO_RCVBUFFORCE" : "SO_SNDBUFFORCE" }
    fileprivate var plainName: String { self == .receive ? "SO_RCVBUF" : "SO_SNDBUF" }
}

/// A socket's buffer that is smaller than it should be.
public struct BufferShortage: Hashable, Sendable {
    public var buffer: SocketBuffer
    /// In bytes.
    public var wanted: Int
    public var granted: Int
}
