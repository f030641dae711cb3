public import Glibc

/// The IPv4 side of a tunnel: where its packets are received, and how a message to another host is addressed. Raw protocol
/// 41 is one; another encapsulation would be another conforming type.
public protocol Underlay: ~Copyable, Sendable {
    /// A socket whose every receive yields one packet with its IPv4 header.
    var receiver: Int32 { get }
    /// A socket that sends as configured.
    var sender: Int32 { get }
    /// A socket that lets IPv4 fragment, for packets that must pass whatever the path MTU.
    var fragmentingSender: Int32 { get }

    /// Fills in a message's name and control data; the gather list is already there. All three pointers are the message's
    /// own until it is sent.
    /// - Parameters:
    ///   - control: at least `MessageQueue.controlSize` bytes.
    ///   - destination: in host order.
    func address(
        _ message: UnsafeMutablePointer<msghdr>, name: UnsafeMutablePointer<sockaddr_in>, control: UnsafeMutableRawPointer,
        destination: UInt32, ttl: UInt8, tos: UInt8)
}

/// Raw protocol 41 (RFC 4213 section 3): the kernel writes the IPv4 header, with the TTL and TOS of the socket or the message.
public struct RawUnderlay: ~Copyable, Underlay {
    private let receiveSocket: RawSocket
    private let sendSocket: RawSocket
    private let fragmentingSocket: RawSocket
    /// What the send sockets put into the header unless a message says otherwise.
    private let ttl: UInt8
    private let tos: UInt8

    public init(
        _ binding: UnderlayBinding, worker: Int, of workers: Int, dontFragment: Bool, ttl: UInt8, tos: UInt8
    ) throws(SystemError) {
        let sender = try RawSocket.sender(binding, dontFragment: dontFragment, ttl: ttl, tos: tos)
        let fragmentingSender = try RawSocket.sender(binding, dontFragment: false, ttl: ttl, tos: tos)
        receiveSocket = try RawSocket.receiver(binding, worker: worker, of: workers)
        sendSocket = sender
        fragmentingSocket = fragmentingSender
        self.ttl = ttl
        self.tos = tos
    }

    public var receiver: Int32 { receiveSocket.descriptor.rawValue }
    public var sender: Int32 { sendSocket.descriptor.rawValue }
    public var fragmentingSender: Int32 { fragmentingSocket.descriptor.rawValue }

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
