internal import Glibc

/// A raw socket that sends, to any destination. Neither packets nor ICMP errors find it, so all that its error queue ever holds is
/// what the host itself says of a send.
final class RawSender: Sendable {
    /// What becomes of a packet that is longer than its path takes.
    enum Excess: Sendable {
        /// It has DF, and the send fails with EMSGSIZE.
        case isRefused
        /// It goes in fragments, whoever said that the path is so narrow.
        case isFragmented
        /// Only what a link of this host does not take goes in fragments. Whatever else is said of the path, the packet goes whole and
        /// without DF, for the routers on it to fragment.
        case goesWhole
    }

    private let socket: RawSocket
    private let excess: Excess
    let shortage: BufferShortage?
    var rawDescriptor: Int32 { socket.rawDescriptor }
    var localAddress: UInt32 { socket.localAddress }

    /// - Parameter ttl, tos: for packets sent without their own.
    init(_ inner: InnerProtocol, _ scope: UnderlayScope, _ excess: Excess, ttl: UInt8, tos: UInt8) throws(SystemError) {
        socket = try RawSocket(inner, scope, isListed: false)
        self.excess = excess
        let discovery =
            switch excess {
            case .isRefused: Int32(IP_PMTUDISC_DO)
            case .isFragmented: Int32(IP_PMTUDISC_DONT)
            // Path MTUs that were learned do not count (`ip_sk_use_pmtu`).
            case .goesWhole: Int32(IP_PMTUDISC_OMIT)
            }
        try socket.set(Int32(IPPROTO_IP), IP_MTU_DISCOVER, discovery, "IP_MTU_DISCOVER")
        try socket.set(Int32(IPPROTO_IP), IP_TTL, Int32(ttl), "IP_TTL")
        try socket.set(Int32(IPPROTO_IP), IP_TOS, Int32(tos), "IP_TOS")
        // Without it the kernel hides that a queueing discipline dropped the packet (ENOBUFS).
        try socket.set(Int32(IPPROTO_IP), IP_RECVERR, 1, "IP_RECVERR")
        // Packets to neighbours that do not answer are charged here while they wait. One sender's dead neighbours must not stop
        // what goes to the others, so the neighbour queues and the queueing discipline are the limits, not this one.
        shortage = try socket.enlarge(.send, to: 256 << 20)
    }

    /// Sends from another address, the first or a later one.
    ///
    /// What has DF comes from a connected socket, which numbers its packets as sit does (`ip_select_ident_segs`: an unconnected one
    /// gives them all 0); to what, does not matter. What may be fragmented must not: the numbers of unconnected sockets are the
    /// host's, one numbering for all of a destination's packets, so that no two workers give one number to two packets at a time.
    func bind(to local: UInt32) throws(SystemError) {
        let isElsewhere = socket.isBoundElsewhere
        if !isElsewhere && socket.localAddress == local && (socket.isConnected || excess != .isRefused) { return }
        if isElsewhere || socket.isConnected { try socket.disconnect() }
        do throws(SystemError) {
            try socket.bind(to: local)
            if excess == .isRefused { try socket.connect(to: local) }
        } catch {
            // Rather nothing than with a source that the kernel chooses.
            try socket.bindToNobody()
            throw error
        }
    }
}
