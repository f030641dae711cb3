internal import CLinux
internal import Glibc

/// What all sockets of one tunnel have in common.
public struct UnderlayBinding: Sendable {
    /// The tunnel's own address, in host order.
    public var local: UInt32
    /// Only through this interface or VRF, where one is named.
    public var device: String?
    /// Of the packets sent, for routing rules and netfilter; 0: none.
    public var mark: UInt32

    public init(local: UInt32, device: String? = nil, mark: UInt32 = 0) {
        self.local = local
        self.device = device
        self.mark = mark
    }
}

/// What a socket's packets carry; the raw value is the protocol number of their IPv4 header.
public enum InnerProtocol: Int32, Sendable {
    case ipv4 = 4
    case ipv6 = 41
}

/// A raw IPv4 socket of protocol 41 or 4, in one of the three roles it has here. None of them takes a packet before it is
/// bound and has its filter: a new raw socket receives at once, from everywhere.
public struct RawSocket: ~Copyable, Sendable {
    public let descriptor: Descriptor

    /// Receives the packets of one worker's flows, IPv4 header included. No error queue: with one, every ICMP error would
    /// end the multishot receive.
    public static func receiver(
        _ binding: UnderlayBinding, _ inner: InnerProtocol, worker: Int, of workers: Int
    ) throws(SystemError) -> RawSocket {
        let socket = try RawSocket(binding, inner, connected: false)
        // The default (208 KiB) holds a few dozen packets of a burst; the plain option stops at net.core.rmem_max.
        try socket.set(SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20, "SO_RCVBUFFORCE")
        drain(socket.descriptor.rawValue)
        try SocketFilter.flows(of: worker, among: workers, inner).attach(to: socket.descriptor.rawValue)
        return socket
    }

    /// Sends. Connected to the local address, it matches no packet and no ICMP error; a connected socket gives its packets
    /// an IPv4 identification even with DF, as sit does.
    /// - Parameters:
    ///   - dontFragment: DF, and EMSGSIZE for what exceeds the path MTU; else the packet is fragmented.
    ///   - ttl, tos: for packets sent without their own.
    public static func sender(
        _ binding: UnderlayBinding, _ inner: InnerProtocol, dontFragment: Bool, ttl: UInt8, tos: UInt8
    ) throws(SystemError) -> RawSocket {
        let socket = try RawSocket(binding, inner, connected: true)
        let discovery = dontFragment ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT
        try socket.set(Int32(IPPROTO_IP), IP_MTU_DISCOVER, Int32(discovery), "IP_MTU_DISCOVER")
        try socket.set(Int32(IPPROTO_IP), IP_TTL, Int32(ttl), "IP_TTL")
        try socket.set(Int32(IPPROTO_IP), IP_TOS, Int32(tos), "IP_TOS")
        // Without it the kernel hides that a queueing discipline dropped the packet (ENOBUFS).
        try socket.set(Int32(IPPROTO_IP), IP_RECVERR, 1, "IP_RECVERR")
        // Packets to neighbours that do not answer are charged here while they wait. One sender's dead neighbours must not stop
        // what goes to the others, so the neighbour queues and the queueing discipline are the limits, not this one.
        try socket.set(SOL_SOCKET, SO_SNDBUFFORCE, 256 << 20, "SO_SNDBUFFORCE")
        return socket
    }

    /// Takes no packets but keeps the kernel from answering "protocol unreachable" when a receiver's buffer is full; and it is
    /// where ICMP errors arrive, each with the IPv4 header it quotes.
    public static func guardian(_ binding: UnderlayBinding, _ inner: InnerProtocol) throws(SystemError) -> RawSocket {
        let socket = try RawSocket(binding, inner, connected: false)
        try socket.set(Int32(IPPROTO_IP), IP_HDRINCL, 1, "IP_HDRINCL")
        try socket.set(Int32(IPPROTO_IP), IP_RECVERR, 1, "IP_RECVERR")
        try socket.set(Int32(IPPROTO_IP), IP_RECVERR_RFC4884, 1, "IP_RECVERR_RFC4884")
        return socket
    }

    private init(_ binding: UnderlayBinding, _ inner: InnerProtocol, connected: Bool) throws(SystemError) {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), inner.rawValue)
        let descriptor = Descriptor(try check("socket(AF_INET, SOCK_RAW, \(inner.rawValue))", socket))
        try SocketFilter.nothing.attach(to: socket)
        // Before the address: a VRF has addresses of its own.
        if let device = binding.device {
            let result = unsafe device.withCString {
                unsafe setsockopt(socket, SOL_SOCKET, SO_BINDTODEVICE, $0, socklen_t(device.utf8.count))
            }
            try check("setsockopt(SO_BINDTODEVICE, \(device))", result)
        }
        if binding.mark != 0 {
            var mark = binding.mark
            let result = unsafe setsockopt(socket, SOL_SOCKET, SO_MARK, &mark, socklen_t(MemoryLayout<UInt32>.size))
            try check("setsockopt(SO_MARK)", result)
        }
        try Self.assign(binding.local, to: socket, connected: connected)
        self.descriptor = descriptor
    }

    /// Gives an open socket another local address. It needs no capability, and the filter and all options stay.
    /// - Parameter isSender: connected, as `sender` makes it.
    public static func rebind(_ socket: Int32, to local: UInt32, isSender: Bool) throws(SystemError) {
        if isSender {
            var nobody = sockaddr(sa_family: sa_family_t(AF_UNSPEC), sa_data: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
            try check("connect(AF_UNSPEC)", unsafe connect(socket, &nobody, socklen_t(MemoryLayout<sockaddr>.size)))
        }
        try assign(local, to: socket, connected: isSender)
    }

    private static func assign(_ local: UInt32, to socket: Int32, connected: Bool) throws(SystemError) {
        var address = socketAddress(local)
        let failed = unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                let length = socklen_t(MemoryLayout<sockaddr_in>.size)
                if unsafe bind(socket, address, length) < 0 { return "bind" }
                if connected, unsafe connect(socket, address, length) < 0 { return "connect" }
                return ""
            }
        }
        if !failed.isEmpty { throw SystemError(failed) }
    }

    static func socketAddress(_ address: UInt32) -> sockaddr_in {
        sockaddr_in(
            sin_family: sa_family_t(AF_INET), sin_port: 0, sin_addr: in_addr(s_addr: address.bigEndian),
            sin_zero: (0, 0, 0, 0, 0, 0, 0, 0))
    }

    private func set(_ level: Int32, _ option: Int32, _ value: Int32, _ name: String) throws(SystemError) {
        var value = value
        let result = unsafe setsockopt(descriptor.rawValue, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
        try check("setsockopt(\(name))", result)
    }

    /// Throws away what came before the filter stood, or before all filters did.
    public static func drain(_ receiver: Int32) {
        var byte: UInt8 = 0
        while unsafe recv(receiver, &byte, 1, Int32(MSG_DONTWAIT)) >= 0 {}
    }
}

extension RawSocket {
    /// Packets that the kernel did not queue because a receiver's buffer was full. It counts them before it asks the filter, so
    /// beside other workers' sockets this is an upper bound.
    public static func overflows(of receiver: Int32) -> UInt64 {
        var information = [UInt32](repeating: 0, count: 16)
        var length = socklen_t(information.count * MemoryLayout<UInt32>.size)
        let drops = 8  // SK_MEMINFO_DROPS of <linux/sock_diag.h>
        guard unsafe getsockopt(receiver, SOL_SOCKET, SO_MEMINFO, &information, &length) == 0,
            Int(length) > drops * MemoryLayout<UInt32>.size
        else { return 0 }
        return UInt64(information[drops])
    }
}
