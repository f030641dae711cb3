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

    /// The interface is `--dev` unless that is a VRF, else the one that leads to the remote, or to the domain's network or the Internet,
    /// for packets from the local address; else the one with that address, else the one that leads to a relay. Where no route says
    /// anything (there are routes to some peers only), it may be any that has IPv4, and the one that takes least counts.
    ///
    /// The MTU is the interface's, or less if a route over it says less: the remote's, the relays', the way to all others.
    /// - Parameter facts: looked up from `local`.
    static func resolve(
        local: IPv4Address, _ query: UnderlayQuery, _ facts: UnderlayFacts
    ) throws(ControlError) -> UnderlayPath {
        let attempt = "find the interface that carries the tunnel"
        try checkEndpoints(query, facts)
        let device = try LocalAddress.device(query, facts)
        let vrf = device.flatMap(facts.vrf)
        let owners = facts.addresses.filter { entry in
            entry.address == local && facts.link(entry.interfaceIndex).flatMap(facts.vrf) == vrf
        }
        let outward = query.remote == nil ? facts.outward : nil
        let toRemote = query.remote == nil ? nil : facts.routes.first ?? nil
        let choices =
            [toRemote?.interfaceIndex, outward?.interfaceIndex] + owners.map(\.interfaceIndex)
            + facts.routes.map { $0?.interfaceIndex }
        let links = choices.compactMap { $0.flatMap(facts.link) }
            .filter { !$0.isLoopback && !$0.isVRF && $0.index != query.tun }
        guard let link = device.flatMap({ $0.isVRF ? nil : $0 }) ?? links.first ?? narrowest(query, facts, in: vrf) else {
            throw ControlError(
                attempt, reason: "no interface but lo has an IPv4 address, and no route leads out of this host",
                remedy: "pass --dev IFACE", isTransient: true)
        }
        let mtus = (facts.routes + [outward]).compactMap { route -> Int? in
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

    /// - Throws: when the remote or a relay is this host itself.
    static func checkEndpoints(_ query: UnderlayQuery, _ facts: UnderlayFacts) throws(ControlError) {
        for (endpoint, route) in zip(query.endpoints, facts.routes) where route?.type == .local {
            throw ControlError("send tunnel packets to \(endpoint)", reason: "it is an address of this host")
        }
    }

    private static func narrowest(_ query: UnderlayQuery, _ facts: UnderlayFacts, in vrf: LinkInfo?) -> LinkInfo? {
        facts.addresses.compactMap { facts.link($0.interfaceIndex) }
            .filter { $0.isUp && !$0.isLoopback && !$0.isVRF && $0.index != query.tun && facts.vrf(of: $0) == vrf }
            .min { $0.mtu < $1.mtu }
    }

    private static func lastAddress(of entry: InterfaceAddress) -> IPv4Address {
        IPv4Address(rawValue: entry.address.rawValue | UInt32.max >> UInt32(entry.prefixLength))
    }
}
