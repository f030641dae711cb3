internal import CLinux
internal import Glibc

/// Asks the kernel how long a packet the host's own routes allow. It needs no capability. Belongs to one worker, which asks rarely:
/// about destinations whose path was found to be too narrow.
@safe
final class RouteMTU: @unchecked Sendable {
    private let netlink: Descriptor
    /// The key that the sockets' packets are routed by, but for the addresses.
    private let mark: UInt32
    private let interface: UnderlayInterface?

    private struct Answer {
        var destination: UInt32 = 0
        var mtu: UInt32 = 0
        /// In seconds of the monotonic clock.
        var end = 0
    }
    /// By hash of the destination; a collision costs a question.
    private let answers: UnsafeMutablePointer<Answer>
    private static var answerCount: Int { 256 }
    /// Seconds for which an answer is good.
    private static var lifetime: Int { 2 }

    /// Asks in the calling thread's network namespace, for ever.
    init(_ scope: UnderlayScope) throws(SystemError) {
        let type = tund_SOCK_RAW | tund_SOCK_CLOEXEC | tund_SOCK_NONBLOCK
        netlink = Descriptor(try check("socket(AF_NETLINK)", socket(AF_NETLINK, type, NETLINK_ROUTE)))
        mark = scope.mark
        interface = scope.interface
        unsafe answers = .allocate(capacity: Self.answerCount)
        unsafe answers.initialize(repeating: Answer(), count: Self.answerCount)
    }

    deinit { unsafe answers.deallocate() }

    /// Of the route to a destination; nil where it sets none. Addresses are in host order.
    /// - Parameter source: asked for with a new question only.
    func find(to destination: UInt32, from source: @autoclosure () -> UInt32) -> Int? {
        var now = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC_COARSE, &now)
        let answer = unsafe answers + Int((destination &* 0x9E37_79B1) >> 24) % Self.answerCount
        if unsafe answer.pointee.destination != destination || answer.pointee.end <= now.tv_sec {
            let mtu = tund_route_mtu(
                netlink.rawValue, destination.bigEndian, source().bigEndian, mark, UInt32(interface?.index ?? 0))
            unsafe answer.pointee = Answer(destination: destination, mtu: mtu, end: now.tv_sec + Self.lifetime)
        }
        let mtu = unsafe answer.pointee.mtu
        return mtu == 0 ? nil : Int(mtu)
    }
}
