internal import TunnelCore

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
    ///   - kernelRoutes: over the TUN, in the kernel's order, which decides between equals.
    ///   - mainTable: the one of the VRF that the TUN is in, if any.
    ///   - domain, own: what a route cannot take addresses from: the domain, and this host's prefixes.
    init(
        of kernelRoutes: [Route6], mainTable: UInt32 = Route6.mainTable, local: IPv4Address, broadcast: IPv4Address?,
        domain: Domain, own: [IPv6Prefix]
    ) {
        var chosen: [IPv6Prefix: Route6] = [:]
        func rank(_ route: Route6) -> (Int, UInt32) { (route.table == mainTable ? 0 : 1, route.metric) }
        for route in kernelRoutes where route.kind == .unicast {
            if let other = chosen[route.prefix], rank(other) <= rank(route) { continue }
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

    /// a.b.c.d of `::a.b.c.d`.
    private static func host(of gateway: IPv6Address) -> IPv4Address? {
        gateway.high == 0 && gateway.low >> 32 == 0 ? IPv4Address(rawValue: UInt32(gateway.low)) : nil
    }
}
