internal import TunnelCore

/// What the kernel knows that decides on the tunnel's IPv4 address and path, gathered once, so that the decisions are
/// functions of it.
struct UnderlayFacts: Equatable, Sendable {
    var links: [LinkInfo]
    var addresses: [InterfaceAddress]
    /// Routes to `UnderlayQuery.endpoints`, in their order; nil: unreachable.
    var routes: [Route4?] = []
    /// Where packets to the Internet at large go.
    var outward: Route4?

    /// An address that only a default route covers: a.root-servers.net, in use since 1993. Nothing is sent there. The
    /// documentation networks (RFC 5737) would not do: hosts that filter bogons have unreachable routes to them.
    static let outwardProbe = IPv4Address(198, 41, 0, 4)

    static func gather(_ query: UnderlayQuery, over netlink: borrowing Netlink) throws(ControlError) -> UnderlayFacts {
        var facts = UnderlayFacts(links: try netlink.links(), addresses: try netlink.ipv4Addresses())
        for endpoint in query.endpoints {
            facts.routes.append(try netlink.ipv4Route(to: endpoint))
        }
        facts.outward = try netlink.ipv4Route(to: outwardProbe)
        return facts
    }

    func link(_ index: Int32) -> LinkInfo? { links.first { $0.index == index } }
    func link(named name: String) -> LinkInfo? { links.first { $0.name == name } }

    /// `10.0.0.1 (eth0), 10.9.0.1 (eth1)`
    func list(_ addresses: [InterfaceAddress]) -> String {
        addresses.map { "\($0.address) (\(link($0.interfaceIndex)?.name ?? "interface \($0.interfaceIndex)"))" }
            .joined(separator: ", ")
    }
}
