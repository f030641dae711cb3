internal import CLinux
internal import Glibc

/// An error that a socket's error queue held (ip(7), IP_RECVERR).
public struct QueuedError: Hashable, Sendable {
    public enum Origin: Hashable, Sendable {
        /// The sending host's own: EMSGSIZE with the path MTU.
        case local
        case icmp(type: UInt8, code: UInt8)
    }
    public var origin: Origin
    public var code: Int32
    /// The path MTU of EMSGSIZE.
    public var info: UInt32
    /// Where the packet was going, in host order.
    public var destination: UInt32
    /// Bytes of the packet that came with the error.
    public var quoteLength: Int
    /// Where among them the extensions of RFC 4884 begin; 0 where there are none, or none that are well-formed.
    public var extensionOffset: Int

    /// The only control message that comes with it: no other was asked for.
    private struct Control {
        var header = cmsghdr()
        var error = sock_extended_err()
        var offender = sockaddr_in()
    }

    /// Takes the oldest error that waits on a socket; nil when there is none. Allocates nothing.
    static func next(of descriptor: Int32) -> QueuedError? {
        unsafe next(of: descriptor, quote: UnsafeMutableRawBufferPointer(start: nil, count: 0))
    }

    /// The same; the packet it is about is put into a slot of the memory.
    public static func next(of descriptor: Int32, quoteInto slot: Int, of memory: inout PacketMemory) -> QueuedError? {
        precondition((0..<memory.slotCount).contains(slot))
        let room = unsafe UnsafeMutableRawBufferPointer(start: memory.address(ofSlot: slot), count: PacketMemory.slotSize)
        return unsafe next(of: descriptor, quote: room)
    }

    private static func next(of descriptor: Int32, quote: UnsafeMutableRawBufferPointer) -> QueuedError? {
        var control = Control()
        var destination = sockaddr_in()
        var vector = unsafe iovec(iov_base: quote.baseAddress, iov_len: quote.count)
        let length = unsafe withUnsafeMutablePointer(to: &control) { control in
            unsafe withUnsafeMutablePointer(to: &destination) { destination in
                unsafe withUnsafeMutablePointer(to: &vector) { vector in
                    var message = unsafe msghdr()
                    unsafe message.msg_name = UnsafeMutableRawPointer(destination)
                    unsafe message.msg_namelen = socklen_t(MemoryLayout<sockaddr_in>.size)
                    unsafe message.msg_iov = vector
                    unsafe message.msg_iovlen = 1
                    unsafe message.msg_control = UnsafeMutableRawPointer(control)
                    unsafe message.msg_controllen = MemoryLayout<Control>.size
                    return unsafe recvmsg(descriptor, &message, Int32(MSG_ERRQUEUE | MSG_DONTWAIT))
                }
            }
        }
        if length < 0 {
            clearPendingError(of: descriptor)
            return nil
        }
        return QueuedError(control, to: destination, quoteLength: length)
    }

    /// `raw_err` queues an error first and then makes it the socket's pending one. Whoever takes it from the queue in between
    /// leaves the pending one behind, for which the socket is ready (POLLERR) though its queue is empty, for ever.
    private static func clearPendingError(of descriptor: Int32) {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        _ = unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length)
    }

    private init(_ control: Control, to address: sockaddr_in, quoteLength length: Int) {
        let error = control.error
        let isICMP = Int32(error.ee_origin) == SO_EE_ORIGIN_ICMP
        origin = isICMP ? .icmp(type: error.ee_type, code: error.ee_code) : .local
        code = Int32(truncatingIfNeeded: error.ee_errno)
        info = error.ee_info
        destination = UInt32(bigEndian: address.sin_addr.s_addr)
        quoteLength = length
        let extensions = error.ee_rfc4884
        let isValid = Int32(extensions.flags) & SO_EE_RFC4884_FLAG_INVALID == 0
        extensionOffset = isICMP && isValid && Int(extensions.len) < length ? Int(extensions.len) : 0
    }
}
