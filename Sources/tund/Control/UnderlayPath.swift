internal import TunnelCore

/// The way that the tunnel's IPv4 packets take out of this host.
struct UnderlayPath: Equatable, Sendable {
    let interfaceIndex: Int32
    let interfaceName: String
    /// The largest IPv4 packet that goes this way, bytes.
    let mtu: Int
    /// The broadcast address of the local address' subnet; nil where there is none (/31, /32, point to point).
    let broadcast: IPv4Address?

    /// The tunnel's MTU: what an IPv4 header of 20 bytes leaves of the path's. Never below IPv6's minimum of 1280 (RFC 8200
    /// section 5: IPv4 has to fragment then), never above what an IPv4 total length can say.
    var tunnelMTU: Int { max(1280, min(mtu, 65535) - 20) }

    /// Finds the path for a local address that `LocalAddress` has given.
    static func find(
        local: IPv4Address, _ query: UnderlayQuery, over netlink: borrowing Netlink
    ) throws(ControlError) -> UnderlayPath {
        try resolve(local: local, query, try UnderlayFacts.gather(query, over: netlink))
    }

    /// The interface is `--dev` unless that is a VRF, else the one that leads to the remote, else the one with the local address. Where that is a
    /// loopback interface (an address announced by a routing protocol), the way to a relay or to the Internet decides.
    ///
    /// The MTU is the interface's, or less if the route to the remote or to a relay says less; in a domain of all IPv4
    /// hosts, the default route's counts, too.
    static func resolve(
        local: IPv4Address, _ query: UnderlayQuery, _ facts: UnderlayFacts
    ) throws(ControlError) -> UnderlayPath {
        let attempt = "find the interface that carries the tunnel"
        for (endpoint, route) in zip(query.endpoints, facts.routes) where route?.type == .local {
            throw ControlError("send tunnel packets to \(endpoint)", reason: "it is an address of this host")
        }
        let device = try LocalAddress.device(query, facts)
        let vrf = device.flatMap(facts.vrf)
        let owners = facts.addresses.filter { entry in
            entry.address == local && facts.link(entry.interfaceIndex).flatMap(facts.vrf) == vrf
        }
        let toRemote = query.remote == nil ? nil : facts.routes.first ?? nil
        let ways = facts.routes.map { $0?.interfaceIndex } + [facts.outward?.interfaceIndex]
        let choices = [toRemote?.interfaceIndex] + owners.map(\.interfaceIndex) + ways
        let links = choices.compactMap { $0.flatMap(facts.link) }.filter { !$0.isLoopback && !$0.isVRF }
        guard let link = device.flatMap({ $0.isVRF ? nil : $0 }) ?? links.first else {
            throw ControlError(attempt, reason: "no route leads out of this host", remedy: "pass --dev IFACE")
        }

        var routes = facts.routes
        if query.remote == nil, query.confiningPrefix == nil { routes.append(facts.outward) }
        let mtus = routes.compactMap { route -> Int? in
            guard let route, route.interfaceIndex == link.index else { return nil }
            return route.mtu
        }

        // The kernel has a broadcast route for the subnet's last address even if none was set (fib_add_ifaddr()).
        let owner = owners.first { $0.interfaceIndex == link.index } ?? owners.first
        let broadcast = owner.flatMap { owner in
            owner.broadcast ?? (owner.prefixLength < 31 ? lastAddress(of: owner) : nil)
        }
        return UnderlayPath(
            interfaceIndex: link.index, interfaceName: link.name, mtu: min(link.mtu, mtus.min() ?? .max),
            broadcast: broadcast)
    }

    private static func lastAddress(of entry: InterfaceAddress) -> IPv4Address {
        IPv4Address(rawValue: entry.address.rawValue | UInt32.max >> UInt32(entry.prefixLength))
    }
}
