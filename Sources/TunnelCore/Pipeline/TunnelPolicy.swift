/// How a byte of the outer header is filled.
public enum OuterField: Hashable, Sendable {
    /// From the inner header: hop limit, or traffic class.
    case inherit
    case fixed(UInt8)
}

/// What a tunnel carries (`ip tunnel help`: mode).
public enum TunnelMode: String, Hashable, Sendable, CaseIterable {
    /// IPv6, as protocol 41.
    case ip6ip
    /// IPv4, as protocol 4 (RFC 2003); point to point only.
    case ipip
    /// Both; point to point only.
    case any

    @inlinable public var carriesIPv6: Bool { self != .ipip }
    @inlinable public var carriesIPv4: Bool { self != .ip6ip }
}

/// What a tunnel does with packets: everything a worker needs to know, checked once and never changed. A new configuration
/// is a new value.
public struct TunnelPolicy: Sendable {
    /// The underlay address packets come from and arrive at.
    public var local: IPv4Address
    /// Whom the tunnel talks to.
    public var peers: Peers
    public var mode = TunnelMode.ip6ip
    public var sourceCheck = SourceCheck.strict
    public var ttl: OuterField = .fixed(64)
    public var tos: OuterField = .inherit
    public var ecn = ECN.Encapsulation.sit
    /// Ask the underlay not to fragment.
    public var dontFragment = true
    /// The underlay network's own broadcast address, or 0.0.0.0.
    public var broadcast = IPv4Address.any
    /// The TUN's MTU: what is longer on the downlink was merged, or reassembled, on its way.
    public var mtu = 1480
    public var mssClamp = MSSClamp.off
    /// Whom ICMPv6 errors come from: an address of this end of the tunnel.
    public var errorSource: IPv6Address

    public enum Peers: Sendable {
        /// Point to point: one peer, and whatever inner addresses it likes.
        case remote(IPv4Address)
        case domain(DomainPeers)
        case isatap(ISATAPPeers)
    }

    public init(local: IPv4Address, peers: Peers) {
        self.local = local
        self.peers = peers
        errorSource = .linkLocal(embedding: local)
        switch peers {
        case .remote: break
        case .domain(let peers):
            if let delegated = peers.domain.delegatedPrefix(of: local) {
                errorSource = IPv6Address(high: delegated.address.high, low: 1)
            }
        case .isatap(let peers): errorSource = peers.address
        }
    }
}

/// The many peers of a domain.
public struct DomainPeers: Sendable {
    public var domain: Domain
    public var plan: AddressPlan
    /// Where destinations outside the domain go, and who may relay sources from there. May be empty.
    public var relays: [IPv4Address]
    /// This host is itself a border relay: it forwards between the domain and whatever is outside.
    public var isBorderRelay: Bool
    /// RFC 3964 section 5.3.1 refuses private embedded addresses in 6to4; that is right only for a host with a public one.
    public var refusesPrivate: Bool
    /// IPv4-compatible addresses (`::a.b.c.d`) belong to a.b.c.d, in R/m or not: automatic tunneling, as sit always does it.
    public var takesCompatible: Bool
    /// Every host that a route names, in ascending order: each may send, though it may be outside R/m.
    public var endpoints: [IPv4Address]

    public init(
        domain: Domain, local: IPv4Address, relays: [IPv4Address] = [], isBorderRelay: Bool = false,
        localPrefixes: [IPv6Prefix] = [], routes: [(prefix: IPv6Prefix, endpoint: IPv4Address)] = [],
        takesCompatible: Bool = false
    ) throws(AddressPlanError) {
        self.domain = domain
        self.relays = relays
        self.isBorderRelay = isBorderRelay
        self.takesCompatible = takesCompatible
        plan = try AddressPlan(
            domain: domain, local: local, localPrefixes: localPrefixes, routes: routes,
            automatic: takesCompatible ? [.compatible] : [])
        refusesPrivate = domain == .sixToFour && !local.isPrivateUse
        endpoints = Set(routes.map(\.endpoint)).sorted()
    }

    /// Whether the host may send to us at all: in R/m, a relay, or a route's endpoint.
    @inlinable
    func knows(_ host: IPv4Address) -> Bool {
        (domain.contains(host) || takesCompatible) && !(refusesPrivate && host.isPrivateUse) || isRelay(host) || isEndpoint(host)
    }

    @inlinable
    func isRelay(_ host: IPv4Address) -> Bool {
        // By hand, since `contains` goes through iterators that retain.
        let relays = relays.span
        for index in relays.indices where relays[index] == host { return true }
        return false
    }

    @inlinable
    func isEndpoint(_ host: IPv4Address) -> Bool {
        let endpoints = endpoints.span
        var (low, high) = (0, endpoints.count)
        while low < high {
            let middle = (low &+ high) / 2
            if endpoints[middle] < host { low = middle &+ 1 } else { high = middle }
        }
        return low < endpoints.count && endpoints[low] == host
    }
}
