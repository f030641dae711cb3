import TunnelCore

/// The tunnels that the tables of both stages speak of.
///
///     site          RFC 5969's example, 2001:db8::/32 + 10.0.0.0/8
///       10.100.100.1 (we)            2001:db8:6464:100::/56
///       10.100.200.2 (a peer)        2001:db8:64c8:200::/56
///       10.0.0.1     (border relay)  2001:db8:0:100::/56
///     sixToFour     2002::/16
///       192.0.2.1    (we)            2002:c000:201::/48
///       198.51.100.7 (a peer)        2002:c633:6407::/48
enum Policies {
    static let site = make("10.100.100.1", siteDomain)
    /// One relay of the domain and one outside R/m.
    static let relayed = make("10.100.100.1", siteDomain, relays: ["10.0.0.1", "192.0.2.33"])
    static let oneRelay = make("10.100.100.1", siteDomain, relays: ["192.0.2.33"])
    /// Routes into a part of the peer's prefix and outside the domain; one prefix behind us; one relay.
    static let routed = make(
        "10.100.100.1", siteDomain, relays: ["192.0.2.33"], localPrefixes: ["fd00:1::/48"],
        routes: ["2001:db8:64c8:280::/58": "10.1.1.1", "3fff:a::/32": "192.0.2.9"])
    /// We are 10.0.0.1.
    static let borderRelay = make("10.0.0.1", siteDomain, isBorderRelay: true)
    static let routedBorderRelay = make(
        "10.0.0.1", siteDomain, isBorderRelay: true, localPrefixes: ["fd00:1::/48"],
        routes: ["2001:db8:64c8:280::/58": "10.1.1.1", "3fff:a::/32": "192.0.2.9"])

    static let sixToFour = make("192.0.2.1", .sixToFour, broadcast: "192.0.2.255")
    static let privatelyRelayed = make("192.0.2.1", .sixToFour, relays: ["10.0.0.9"], broadcast: "192.0.2.255")
    static let privateSixToFour = make("10.0.0.1", .sixToFour, broadcast: "10.0.0.255")
    /// fd00::/32 with whole IPv4 addresses; the peer's prefix is fd00:0:c633:6407::/64.
    static let wholeIPv4 = make("192.0.2.1", domain("fd00::/32", "0.0.0.0/0"), broadcast: "192.0.2.255")

    static let remote: TunnelPolicy = {
        var policy = TunnelPolicy(local: v4("192.0.2.1"), peers: .remote(v4("198.51.100.7")))
        policy.broadcast = v4("192.0.2.255")
        return policy
    }()

    /// IPv4 inside, alone and beside IPv6.
    static let ipip = remote.with(mode: .ipip)
    static let any = remote.with(mode: .any)

    static let all = [
        site, relayed, oneRelay, routed, borderRelay, routedBorderRelay, sixToFour, privatelyRelayed, privateSixToFour, wholeIPv4,
        remote, ipip, any,
    ]

    static let siteDomain = domain("2001:db8::/32", "10.0.0.0/8")

    static func domain(_ prefix: String, _ relayPrefix: String) -> Domain {
        try! Domain(prefix: prefix6(prefix), relayPrefix: prefix4(relayPrefix))
    }

    static func make(
        _ local: String, _ domain: Domain, relays: [String] = [], isBorderRelay: Bool = false, localPrefixes: [String] = [],
        routes: KeyValuePairs<String, String> = [:], broadcast: String = "10.255.255.255"
    ) -> TunnelPolicy {
        let peers = try! DomainPeers(
            domain: domain, local: v4(local), relays: relays.map(v4), isBorderRelay: isBorderRelay,
            localPrefixes: localPrefixes.map(prefix6), routes: routes.map { (prefix6($0.key), v4($0.value)) })
        var policy = TunnelPolicy(local: v4(local), peers: .domain(peers))
        policy.broadcast = v4(broadcast)
        return policy
    }
}

extension TunnelPolicy {
    func with(mode: TunnelMode) -> TunnelPolicy {
        var policy = self
        policy.mode = mode
        return policy
    }

    func with(
        ttl: OuterField? = nil, tos: OuterField? = nil, broadcast: String? = nil, sourceCheck: SourceCheck? = nil
    ) -> TunnelPolicy {
        var policy = self
        policy.sourceCheck = sourceCheck ?? self.sourceCheck
        policy.ttl = ttl ?? self.ttl
        policy.tos = tos ?? self.tos
        policy.broadcast = broadcast.map(v4) ?? self.broadcast
        return policy
    }
}
