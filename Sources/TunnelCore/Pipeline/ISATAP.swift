// ISATAP (RFC 5214): the IPv4 network of a site as one IPv6 link, whose routers are known by a list.

/// The many peers of an ISATAP link.
public struct ISATAPPeers: Sendable {
    /// The link's prefixes, in which an address ends in its host's; what lives behind this host; static routes.
    public var plan: AddressPlan
    /// The potential router list: who takes what is not on the link, and may send any source. May be empty.
    public var routers: [IPv4Address]
    /// This host is itself a router of the link.
    public var isRouter: Bool
    /// This host's own, a global one if there is any.
    public let address: IPv6Address

    /// - Parameter prefixes: of the link, each a /64, besides fe80::/64.
    public init(
        local: IPv4Address, prefixes: [IPv6Prefix], routers: [IPv4Address] = [], isRouter: Bool = false,
        localPrefixes: [IPv6Prefix] = [], routes: [(prefix: IPv6Prefix, endpoint: IPv4Address)] = []
    ) throws(AddressPlanError) {
        self.routers = routers
        self.isRouter = isRouter
        address = .isatap(local, in: prefixes.first ?? .linkLocal)
        for prefix in prefixes where AddressPlan.isReserved(prefix) { throw .reserved(prefix) }
        plan = try AddressPlan(
            domain: nil, local: local, localPrefixes: localPrefixes, routes: routes,
            automatic: ([.linkLocal] + prefixes).flatMap(\.isatap))
    }

    @inlinable
    func isRouter(_ host: IPv4Address) -> Bool {
        let routers = routers.span
        for index in routers.indices where routers[index] == host { return true }
        return false
    }

    /// The first strict rule that refuses the inner addresses of a packet that arrived from `outerSource`; nil if none does.
    @inlinable
    func refusal(of packet: borrowing IPv6View, from outerSource: IPv4Address) -> DropReason? {
        let isFromRouter = isRouter(outerSource)
        let source = packet.source
        switch plan.owner(of: source) {
        case .trailing:
            if !isFromRouter {
                if source.trailingHost != outerSource { return .downlinkInnerSourceSpoofed }
                if packet.isRouterAdvertisement { return .downlinkInnerSourceUnauthorized }
            }
        case .endpoint(let endpoint):
            if endpoint != outerSource && !isFromRouter { return .downlinkInnerSourceUnauthorized }
        case .outside, .embedded:
            if !isFromRouter { return .downlinkInnerSourceUnauthorized }
        case .linkLocal:
            if !isFromRouter { return .downlinkInnerSourceInvalid }
        case .local:
            return .downlinkInnerSourceSpoofed
        case .invalid, .multicast:
            return .downlinkInnerSourceInvalid
        }
        switch plan.owner(of: packet.destination) {
        case .local:
            return nil
        case .multicast:
            // Router advertisements to all nodes.
            return isFromRouter ? nil : .downlinkInnerDestinationInvalid
        case .outside, .endpoint:
            return isRouter ? nil : .downlinkInnerDestinationForeign
        case .embedded, .trailing:
            return .downlinkInnerDestinationForeign
        case .invalid, .linkLocal:
            return .downlinkInnerDestinationInvalid
        }
    }

    /// Whether a packet from the TUN may carry this source.
    @inlinable
    func maySend(from source: IPv6Address) -> Bool {
        switch plan.owner(of: source) {
        case .local: true
        case .outside, .endpoint: isRouter
        case .embedded, .trailing, .invalid, .linkLocal, .multicast: false
        }
    }

    /// net/ipv6/sit.c `isatap_chksrc`; routes with an endpoint are ours. sit also tells the kernel which packets are no router's, and
    /// the kernel takes no advertisement from those; behind a TUN it cannot know, so they end here.
    @inline(never) @usableFromInline
    func refusalOfSit(_ packet: borrowing IPv6View, from outerSource: IPv4Address) -> DropReason? {
        if isRouter(outerSource) { return nil }
        let isHosts =
            switch plan.owner(of: packet.source) {
            case .trailing: packet.source.trailingHost == outerSource
            case .endpoint(let endpoint): endpoint == outerSource
            default: false
            }
        if !isHosts { return .downlinkInnerSourceSpoofed }
        return packet.isRouterAdvertisement ? .downlinkInnerSourceUnauthorized : nil
    }
}

extension TunnelPolicy {
    /// The first rule that refuses a packet that arrived from `outerSource` on an ISATAP link; nil if none does.
    @inlinable
    func refusal(
        of packet: borrowing IPv6View, from outerSource: IPv4Address, among peers: borrowing ISATAPPeers
    ) -> DropReason? {
        switch sourceCheck {
        case .strict:
            if !isPeerAddress(outerSource) { return .downlinkOuterSourceMartian }
            if packet.isNestedTunnel { return .downlinkNestedTunnel }
            return peers.refusal(of: packet, from: outerSource)
        case .sit:
            return peers.refusalOfSit(packet, from: outerSource)
        case .off:
            return nil
        }
    }

    @inlinable
    func nextHop(of packet: borrowing IPv6View, among peers: borrowing ISATAPPeers) -> NextHop {
        let destination = packet.destination
        let owner = peers.plan.owner(of: destination)
        if owner == .multicast { return .drop(.uplinkMulticastDestination) }
        if owner == .linkLocal { return .drop(.uplinkLinkLocalDestination) }
        guard sourceCheck != .strict || peers.maySend(from: packet.source) else { return .drop(.uplinkForeignSource) }
        switch owner {
        case .trailing:
            let host = destination.trailingHost
            let isRefused = sourceCheck == .strict ? !isPeerAddress(host) : host.isMulticast
            return isRefused ? .drop(.uplinkMartianDestination) : .send(host)
        case .endpoint(let host):
            return .send(host)
        case .outside, .embedded:
            if peers.routers.isEmpty { return .drop(.uplinkNoRoute) }
            let routers = peers.routers.span
            return .send(routers[FlowHash.pick(FlowHash.of(packet), of: routers.count)])
        case .local:
            return .drop(.uplinkLocalDestination)
        case .invalid, .linkLocal, .multicast:
            return .drop(.uplinkNoRoute)
        }
    }
}

extension IPv6View {
    /// RFC 4861 section 4.2. Hosts of the link send none (RFC 5214 section 8.3.3): one would become everybody's default router.
    @inlinable
    var isRouterAdvertisement: Bool {
        let upper = upperLayer
        return upper.protocolNumber == ProtocolNumber.icmpv6 && upper.offset < bytes.byteCount
            && bytes.byte(at: upper.offset) == ICMPv6Type.routerAdvertisement
    }
}
