internal import Glibc
internal import Synchronization

/// The raw sockets that hear one tunnel's packets, or the ICMP errors about them, at the address that the tunnel has at the time.
///
/// In a domain that is one socket, bound to one address after the other. Point to point it is connected to the remote besides, so
/// that other hosts' packets are not even copied for it (`raw_v4_match`), however many tunnels there are. But a connected socket is
/// never bound again: it would have to be disconnected, and then the kernel does not find it any more (`__udp_disconnect`). So
/// a second one waits there, which serves every later address and stays unconnected.
public final class RawListener: Sendable {
    private let sockets: [RawSocket]
    private let remote: UInt32?
    /// What a socket takes that has its address; nil: it has a filter already that takes nothing.
    private let filter: Filter?
    /// Where packets must come from that the filter takes.
    private let interface: UnderlayInterface?
    private let filteredInterface = Atomic<Int32>(0)
    /// Which of the sockets has the tunnel's address and its filter; -1: none. Written by the thread that binds.
    private let taking = Atomic(-1)
    public let shortage: BufferShortage?

    /// Receives the packets of one worker's flows, IPv4 header included. No error queue: with one, every ICMP error would
    /// end the multishot receive.
    /// - Parameters:
    ///   - isRenumbered: whether it will be bound to more than one address.
    ///   - notes: the worker's, of what the kernel merges.
    static func receiver(
        _ inner: InnerProtocol, _ scope: UnderlayScope, isRenumbered: Bool, worker: Int, of workers: Int,
        notes: MergeNotes? = nil
    ) throws(SystemError) -> RawListener {
        let sockets = try sockets(inner, scope, isRenumbered: isRenumbered)
        var shortage: BufferShortage?
        // The default (208 KiB) holds a few dozen packets of a burst.
        for socket in sockets {
            shortage = try socket.enlarge(.receive, to: 8 << 20)
            // A connected socket's receive fails with the ICMP errors about it; so "fragmentation needed" is not among them.
            if scope.learnsPathMTU {
                try socket.set(Int32(IPPROTO_IP), IP_MTU_DISCOVER, Int32(IP_PMTUDISC_DONT), "IP_MTU_DISCOVER")
            }
        }
        notes?.watch(sockets.map(\.rawDescriptor))
        let filter = notes.map { .noting($0, inner) } ?? Filter.flows(.flows(of: worker, among: workers, inner))
        return RawListener(sockets, scope, filter, shortage)
    }

    /// What a receiver takes.
    private enum Filter: Sendable {
        case flows(SocketFilter)
        /// The same, with notes. It finds the interface by itself.
        case noting(MergeNotes, InnerProtocol)

        func attach(to socket: Int32, _ interface: UnderlayInterface?) throws(SystemError) {
            switch self {
            case .flows(let flows):
                try (interface.map { flows.only(through: $0.index) } ?? flows).attach(to: socket)
            case .noting(let notes, let inner): try notes.attach(to: socket, inner)
            }
        }
    }

    /// Takes no packets but keeps the kernel from answering "protocol unreachable" when a receiver's buffer is full; and it is
    /// where ICMP errors arrive, each with the IPv4 header it quotes.
    public static func guardian(
        _ inner: InnerProtocol, _ scope: UnderlayScope, isRenumbered: Bool
    ) throws(SystemError) -> RawListener {
        let sockets = try sockets(inner, scope, isRenumbered: isRenumbered)
        for socket in sockets {
            try socket.set(Int32(IPPROTO_IP), IP_HDRINCL, 1, "IP_HDRINCL")
            try socket.set(Int32(IPPROTO_IP), IP_RECVERR, 1, "IP_RECVERR")
            try socket.set(Int32(IPPROTO_IP), IP_RECVERR_RFC4884, 1, "IP_RECVERR_RFC4884")
        }
        return RawListener(sockets, scope, nil, nil)
    }

    /// Takes no packets and hears no errors: it only keeps the kernel from answering "protocol unreachable", to whomever.
    public static func silencer(_ inner: InnerProtocol, _ scope: UnderlayScope) throws(SystemError) -> RawListener {
        var scope = scope
        scope.remote = nil
        scope.learnsPathMTU = false
        return RawListener(try sockets(inner, scope, isRenumbered: true), scope, nil, nil)
    }

    private static func sockets(
        _ inner: InnerProtocol, _ scope: UnderlayScope, isRenumbered: Bool
    ) throws(SystemError) -> [RawSocket] {
        var sockets = [try RawSocket(inner, scope, isListed: true)]
        if scope.remote != nil && isRenumbered { sockets.append(try RawSocket(inner, scope, isListed: true)) }
        if !scope.learnsPathMTU {
            // `ipv4_sk_update_pmtu` asks each socket that an ICMP error finds.
            for socket in sockets {
                try socket.set(Int32(IPPROTO_IP), IP_MTU_DISCOVER, Int32(IP_PMTUDISC_OMIT), "IP_MTU_DISCOVER")
            }
        }
        return sockets
    }

    private init(_ sockets: [RawSocket], _ scope: UnderlayScope, _ filter: Filter?, _ shortage: BufferShortage?) {
        self.sockets = sockets
        remote = scope.remote
        interface = scope.interface.flatMap { $0.isFollowed ? $0 : nil }
        self.filter = filter
        self.shortage = shortage
    }

    /// One, or two.
    public var rawDescriptors: [Int32] { sockets.map(\.rawDescriptor) }

    /// Goes over to a local address, the first or another one, and takes packets from then on. What is as it should be stays as it
    /// is, so this may be called at any time: where there was no route to the remote, it connects as soon as there is one.
    public func bind(to local: UInt32) throws(SystemError) {
        let (index, former) = (index(for: local), taking.load(ordering: .relaxed))
        let socket = sockets[index]
        if former != index { try rest() }
        if socket.localAddress != local { try socket.bind(to: local) }
        if let remote, index == 0, !socket.isConnected {
            // That is for speed only.
            do throws(SystemError) { try socket.connect(to: remote) } catch {}
        }
        let wanted = interface?.index ?? 0
        if former == index && filteredInterface.load(ordering: .relaxed) == wanted { return }
        if let filter {
            if former != index { socket.drain() }
            try filter.attach(to: socket.rawDescriptor, interface)
        }
        filteredInterface.store(wanted, ordering: .relaxed)
        taking.store(index, ordering: .relaxed)
    }

    /// Takes nothing until `bind` is called again.
    public func rest() throws(SystemError) {
        let index = taking.load(ordering: .relaxed)
        if index < 0 { return }
        if filter != nil { try SocketFilter.nothing.attach(to: sockets[index].rawDescriptor) }
        // A connected socket keeps its address, since it gets no other one.
        if !sockets[index].isConnected { try sockets[index].bindToNobody() }
        taking.store(-1, ordering: .relaxed)
    }

    private func index(for local: UInt32) -> Int {
        let isTaken = sockets[0].isConnected && sockets[0].localAddress != local
        return isTaken && sockets.count > 1 ? 1 : 0
    }

    /// Packets that the kernel did not queue because a buffer was full.
    var overflows: UInt64 { sockets.reduce(0) { $0 + $1.overflows } }
}
