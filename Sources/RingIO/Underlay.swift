public import Glibc

/// The descriptors of an underlay's sockets, for one inner protocol.
public struct UnderlaySockets: Sendable {
    /// Every receive yields one packet with its IPv4 header.
    public var receiver: Int32
    /// Where a tunnel that is renumbered receives later on; -1: there.
    public var secondReceiver: Int32
    /// Sends with DF.
    public var sender: Int32
    /// Fragments what the path does not take.
    public var fragmentingSender: Int32
    /// Sends without DF, and fragments only what a link of this host does not take.
    public var wholeSender: Int32
}

/// The IPv4 side of a tunnel: where its packets are received, and how a message to another host is addressed. Raw protocols
/// 41 and 4 are one; another encapsulation would be another conforming type.
public protocol Underlay: ~Copyable, Sendable {
    /// nil where the tunnel does not carry it.
    func sockets(carrying inner: InnerProtocol) -> UnderlaySockets?

    /// The longest IPv4 packet that this host's own route to a destination (host order) allows, whatever was learned of the path
    /// behind it; nil: as long as the link takes.
    func routeMTU(to destination: UInt32, carrying inner: InnerProtocol) -> Int?

    /// Fills in a message's name and control data; the gather list is already there. All three pointers are the message's
    /// own until it is sent.
    /// - Parameters:
    ///   - control: at least `MessageQueue.controlSize` bytes.
    ///   - destination: in host order.
    func address(
        _ message: UnsafeMutablePointer<msghdr>, name: UnsafeMutablePointer<sockaddr_in>, control: UnsafeMutableRawPointer,
        destination: UInt32, ttl: UInt8, tos: UInt8)
}

/// Raw protocol 41 (RFC 4213 section 3) and 4 (RFC 2003): the kernel writes the IPv4 header, with the TTL and TOS of the socket or
/// the message.
public struct RawUnderlay: ~Copyable, Underlay {
    private let sockets: [RawSockets]
    /// What the send sockets put into the header unless a message says otherwise.
    private let ttl: UInt8
    private let tos: UInt8

    /// - Parameters:
    ///   - sockets: one worker's, one for each protocol that the tunnel carries.
    ///   - ttl, tos: as these were made with.
    public init(_ sockets: [RawSockets], ttl: UInt8, tos: UInt8) {
        self.sockets = sockets
        self.ttl = ttl
        self.tos = tos
    }

    public func sockets(carrying inner: InnerProtocol) -> UnderlaySockets? { sockets.first { $0.inner == inner }?.descriptors }

    public func routeMTU(to destination: UInt32, carrying inner: InnerProtocol) -> Int? {
        sockets.first { $0.inner == inner }?.routeMTU(to: destination)
    }

    @inline(__always)
    public func address(
        _ message: UnsafeMutablePointer<msghdr>, name: UnsafeMutablePointer<sockaddr_in>, control: UnsafeMutableRawPointer,
        destination: UInt32, ttl: UInt8, tos: UInt8
    ) {
        unsafe name.pointee = RawSocket.socketAddress(destination)
        unsafe message.pointee.msg_name = UnsafeMutableRawPointer(name)
        unsafe message.pointee.msg_namelen = socklen_t(MemoryLayout<sockaddr_in>.size)
        var length = 0
        if ttl != self.ttl { unsafe Self.append(IP_TTL, Int32(ttl), to: control, at: &length) }
        if tos != self.tos { unsafe Self.append(IP_TOS, Int32(tos), to: control, at: &length) }
        unsafe message.pointee.msg_control = length == 0 ? nil : control
        unsafe message.pointee.msg_controllen = length
    }

    /// One control message that carries a 4-byte number: CMSG_LEN 20, CMSG_SPACE 24.
    @inline(__always)
    private static func append(_ type: Int32, _ value: Int32, to control: UnsafeMutableRawPointer, at offset: inout Int) {
        let header = MemoryLayout<cmsghdr>.size
        var message = cmsghdr()
        message.cmsg_len = header + MemoryLayout<Int32>.size
        message.cmsg_level = Int32(IPPROTO_IP)
        message.cmsg_type = type
        unsafe control.storeBytes(of: message, toByteOffset: offset, as: cmsghdr.self)
        unsafe control.storeBytes(of: value, toByteOffset: offset + header, as: Int32.self)
        offset += header + 8
    }
}

/// A worker's raw sockets of one protocol. They are made while the process has CAP_NET_RAW, and take and send nothing before
/// they are given an address.
public final class RawSockets: Sendable {
    public let inner: InnerProtocol
    private let sender: RawSender
    private let fragmentingSender: RawSender
    private let wholeSender: RawSender
    private let receiver: RawListener
    private let routes: RouteMTU

    /// - Parameters:
    ///   - isRenumbered: whether they will be given more than one address.
    ///   - notes: the worker's, of what the kernel merges.
    ///   - ttl, tos: for packets sent without their own.
    public init(
        _ inner: InnerProtocol, _ scope: UnderlayScope, isRenumbered: Bool, worker: Int, of workers: Int,
        notes: MergeNotes? = nil, ttl: UInt8, tos: UInt8
    ) throws(SystemError) {
        self.inner = inner
        sender = try RawSender(inner, scope, .isRefused, ttl: ttl, tos: tos)
        fragmentingSender = try RawSender(inner, scope, .isFragmented, ttl: ttl, tos: tos)
        wholeSender = try RawSender(inner, scope, .goesWhole, ttl: ttl, tos: tos)
        routes = try RouteMTU(scope)
        receiver = try .receiver(inner, scope, isRenumbered: isRenumbered, worker: worker, of: workers, notes: notes)
    }

    /// Goes over to a local address, the first or another one. It needs no capability, and may be called at any time.
    public func bind(to local: UInt32) throws(SystemError) {
        try receiver.bind(to: local)
        for sender in [sender, fragmentingSender, wholeSender] { try sender.bind(to: local) }
    }

    /// Takes nothing until `bind` is called again.
    public func rest() throws(SystemError) { try receiver.rest() }

    /// Buffers that the host did not grant.
    public var shortages: [BufferShortage] { [receiver.shortage, sender.shortage].compactMap(\.self) }

    /// Packets that came while the receiver's buffer was full; an upper bound.
    public var overflows: UInt64 { receiver.overflows }

    /// All of them, for who wants to tell them from others'.
    public var rawDescriptors: [Int32] {
        receiver.rawDescriptors + [sender, fragmentingSender, wholeSender].map(\.rawDescriptor)
    }

    var descriptors: UnderlaySockets {
        let receivers = receiver.rawDescriptors
        return UnderlaySockets(
            receiver: receivers[0], secondReceiver: receivers.count > 1 ? receivers[1] : -1, sender: sender.rawDescriptor,
            fragmentingSender: fragmentingSender.rawDescriptor, wholeSender: wholeSender.rawDescriptor)
    }

    func routeMTU(to destination: UInt32) -> Int? { routes.find(to: destination, from: sender.localAddress) }
}
