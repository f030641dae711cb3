internal import TunnelCore

/// What the kernel knows that decides on the tunnel's IPv4 address and path, gathered once, so that the decisions are
/// functions of it.
struct UnderlayFacts: Equatable, Sendable {
    var links: [LinkInfo]
    var addresses: [InterfaceAddress]
    /// `--dev`, also by an alternative name; nil: it is not there.
    var device: LinkInfo?
    /// Routes to `UnderlayQuery.endpoints`, in their order; nil: unreachable.
    var routes: [Route4?] = []
    /// Where packets go to those whom nobody named (`UnderlayQuery.outwardProbes`).
    var outward: Route4?
    /// Of the addresses asked about, those that the kernel takes packets for: it has a route of type local to them. An interface need
    /// not have them (addresses of load balancers, `ip route add local`).
    var ours: Set<IPv4Address> = []

    /// - Parameters:
    ///   - source: the local address that the sockets are bound to, which policy rules may look at; nil while there is none.
    ///   - asked: addresses that may be this host's.
    static func gather(
        _ query: UnderlayQuery, from source: IPv4Address?, asking asked: [IPv4Address] = [], over netlink: borrowing Netlink
    ) throws(ControlError) -> UnderlayFacts {
        var facts = UnderlayFacts(links: try netlink.links(), addresses: try netlink.ipv4Addresses())
        if let name = query.device {
            facts.device = facts.links.first { $0.index == query.deviceIndex }
            if facts.device == nil { facts.device = try netlink.link(named: name) }
        }
        try facts.look(query, from: source, over: netlink)
        let vrf = facts.device.flatMap(facts.vrf)
        for address in asked {
            let route = try netlink.ipv4Route(to: address, RouteKey(device: vrf?.index, mark: query.mark))
            if route?.type == .local { facts.ours.insert(address) }
        }
        return facts
    }

    /// Looks up the routes as the tunnel's sockets will, so that rules and tables choose the same.
    mutating func look(
        _ query: UnderlayQuery, from source: IPv4Address?, over netlink: borrowing Netlink
    ) throws(ControlError) {
        let key = RouteKey(source: source, device: device?.index, mark: query.mark)
        routes = []
        for endpoint in query.endpoints { routes.append(try way(to: endpoint, key, query, over: netlink)) }
        outward = nil
        for probe in query.outwardProbes where outward == nil {
            let route = try way(to: probe, key, query, over: netlink)
            if route?.type == .unicast { outward = route }
        }
    }

    private func way(
        to destination: IPv4Address, _ key: RouteKey, _ query: UnderlayQuery, over netlink: borrowing Netlink
    ) throws(ControlError) -> Route4? {
        let route = try netlink.ipv4Route(to: destination, key)
        return route.flatMap { $0.interfaceIndex == query.tun ? nil : $0 }
    }

    func link(_ index: Int32) -> LinkInfo? { links.first { $0.index == index } }

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
