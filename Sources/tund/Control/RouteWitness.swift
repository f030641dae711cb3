internal import CLinux
internal import CNetlink
internal import Glibc

/// Hears whether any IPv6 route of this network namespace changes while a dump of them is under way.
///
/// The kernel does not tell (`inet6_dump_fib` in net/ipv6/ip6_fib.c does not set NLM_F_DUMP_INTR): where a table has changed between
/// two parts of a dump, it begins at the root again and skips as many routes as it has shown. So it may leave out one that was there
/// all the time. It announces a change before it releases the table's lock, and thus before the next part.
struct RouteWitness: ~Copyable {
    private let descriptor: Int32

    init() throws(ControlError) {
        descriptor = socket(AF_NETLINK, tund_SOCK_RAW | tund_SOCK_CLOEXEC | tund_SOCK_NONBLOCK, NETLINK_ROUTE)
        if descriptor < 0 { throw ControlError("open a netlink socket", code: errno) }
        // Where an interface goes down, its routes may go unannounced (net.ipv6.route.skip_notify_on_dev_down).
        for group in [RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK] {
            var group = group.rawValue
            _ = unsafe setsockopt(
                descriptor, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, socklen_t(MemoryLayout.size(ofValue: group)))
        }
    }

    deinit { close(descriptor) }

    /// Something has changed since it was made. More than the socket holds is a change, too (ENOBUFS).
    var hasHeard: Bool {
        var byte: UInt8 = 0
        return unsafe recv(descriptor, &byte, 1, Int32(MSG_PEEK)) >= 0 || errno != EAGAIN
    }
}
