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
        // As the tunnel's sockets will send, so that rules and tables choose the same.
        let device = query.device.flatMap { facts.link(named: $0)?.index }
        for endpoint in query.endpoints {
            facts.routes.append(try netlink.ipv4Route(to: endpoint, device: device, mark: query.mark))
        }
        facts.outward = try netlink.ipv4Route(to: outwardProbe, device: device, mark: query.mark)
        return facts
    }

    func link(_ index: Int32) -> LinkInfo? { links.first { $0.index == index } }
    func link(named name: String) -> LinkInfo? { links.first { $0.name == name } }

    /// The VRF that an interface is, or is part of: addresses and routes of different VRFs know nothing of each other.
    func vrf(of link: LinkInfo) -> LinkInfo? { [link, self.link(link.master)].compactMap(\.self).first(where: \.isVRF) }

    /// `10.0.0.1 (eth0), 10.9.0.1 (eth1 in the VRF blue)`
    func list(_ addresses: [InterfaceAddress]) -> String {
        addresses.map { entry in
            guard let link = link(entry.interfaceIndex) else { return "\(entry.address) (interface \(entry.interfaceIndex))" }
            let vrf = vrf(of: link).map { $0 == link ? "" : " in the VRF \($0.name)" } ?? ""
            return "\(entry.address) (\(link.name)\(vrf))"
        }.joined(separator: ", ")
    }
}
