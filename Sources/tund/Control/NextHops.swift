internal import TunnelCore

/// A unicast route over the TUN as the kernel has it.
struct Route6: Equatable, Sendable {
    let prefix: IPv6Prefix
    let isInMainTable: Bool
    /// The smallest one wins.
    let metric: UInt32
    /// Of each next hop over the TUN; nil: the prefix is on the link.
    let gateways: [IPv6Address?]
}

/// The next hops that a TUN hides: routes of the kernel with a gateway `::a.b.c.d`, which sit sends to that IPv4 host
/// (net/ipv6/sit.c `ipip6_tunnel_xmit`), as routes of the plan.
///
/// As with sit, they are for what lies outside the domain. The kernel chooses among routes of one prefix by table and metric; here
/// all tables count, the main one first.
struct NextHops: Equatable {
    var routes: [StaticRoute] = []
    /// Routes that are not followed, and why.
    var warnings: [String] = []

    init() {}

    /// - Parameters:
    ///   - kernelRoutes: in the kernel's order, which decides between equals.
    ///   - domain, own: what a route cannot take addresses from: the domain, and this host's prefixes.
    init(
        of kernelRoutes: [Route6], local: IPv4Address, broadcast: IPv4Address?, domain: Domain, own: [IPv6Prefix]
    ) {
        var chosen: [IPv6Prefix: Route6] = [:]
        for route in kernelRoutes {
            if let other = chosen[route.prefix], Self.rank(other) <= Self.rank(route) { continue }
            chosen[route.prefix] = route
        }
        let inOrder = chosen.values.sorted {
            ($0.prefix.address, $0.prefix.length) < ($1.prefix.address, $1.prefix.length)
        }
        for route in inOrder {
            let hosts = route.gateways.compactMap { $0.flatMap(Self.host) }
            guard let host = hosts.first else { continue }
            let name = "the route \(route.prefix) via ::\(host)"
            if domain.prefix.length <= route.prefix.length && domain.prefix.contains(route.prefix.address) {
                warnings.append("\(name) is not followed: in the domain the embedded IPv4 address decides, as with sit")
            } else if let error = AddressPlan.refusal(of: route.prefix, behind: host, local: local, own: own) {
                warnings.append("\(name) is not followed: \(error)")
            } else if host == broadcast {
                warnings.append("\(name) is not followed: \(host) is a broadcast address")
            } else {
                if hosts.count > 1 { warnings.append("\(name) has \(hosts.count) next hops: only this one is used") }
                routes.append(StaticRoute(prefix: route.prefix, endpoint: host))
            }
        }
    }

    private static func rank(_ route: Route6) -> (Int, UInt32) {
        (route.isInMainTable ? 0 : 1, route.metric)
    }

    /// a.b.c.d of `::a.b.c.d`.
    private static func host(of gateway: IPv6Address) -> IPv4Address? {
        gateway.high == 0 && gateway.low >> 32 == 0 ? IPv4Address(rawValue: UInt32(gateway.low)) : nil
    }
}
