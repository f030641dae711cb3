import TunnelCore

@testable import tund

/// A host with lo, eth0 (10.0.0.1/24, MTU 1500), eth1 (10.9.0.1/16, MTU 1400) and an address on lo that a routing protocol
/// would announce.
enum UnderlayFixture {
    static let lo = LinkInfo(index: 1, name: "lo", mtu: 65536, flags: 0x9)
    static let eth0 = LinkInfo(index: 2, name: "eth0", mtu: 1500, flags: 0x1003)
    static let eth1 = LinkInfo(index: 3, name: "eth1", mtu: 1400, flags: 0x1003)

    /// eth1 as a part of the VRF blue, beside which it stands in `inVRF`.
    static let blue = LinkInfo(index: 4, name: "blue", mtu: 65575, flags: 0x4C1, kind: "vrf", vrfTable: 10)
    static let blueEth1 = LinkInfo(index: 3, name: "eth1", mtu: 1400, flags: 0x1003, master: 4)

    static let loopback = on(lo, "127.0.0.1", 8, global: false)
    static let announced = on(lo, "10.200.0.1", 32)
    static let first = on(eth0, "10.0.0.1", 24, broadcast: "10.0.0.255")
    static let second = on(eth1, "10.9.0.1", 16)
    static let third = on(eth0, "10.0.0.7", 24, broadcast: "10.0.0.255")
    static let linkLocal = on(eth1, "169.254.7.7", 16, global: false)

    static func on(
        _ link: LinkInfo, _ address: String, _ length: Int, global: Bool = true, broadcast: String? = nil
    ) -> InterfaceAddress {
        InterfaceAddress(
            address: IPv4Address(address)!, prefixLength: length, interfaceIndex: link.index, isGlobalScope: global,
            broadcast: broadcast.map { IPv4Address($0)! })
    }

    static func route(
        _ link: LinkInfo, _ source: String?, mtu: Int? = nil, _ type: Route4.Kind = .unicast
    ) -> Route4 {
        Route4(interfaceIndex: link.index, source: source.map { IPv4Address($0)! }, mtu: mtu, type: type)
    }

    /// - Parameter dev: `--dev`, as in the query.
    static func facts(
        _ addresses: [InterfaceAddress], routes: [Route4?] = [], outward: Route4? = nil, dev: String? = nil
    ) -> UnderlayFacts {
        facts([lo, eth0, eth1], addresses, routes, outward, dev)
    }

    static func inVRF(
        _ addresses: [InterfaceAddress], routes: [Route4?] = [], outward: Route4? = nil, dev: String? = nil
    ) -> UnderlayFacts {
        facts([lo, eth0, blueEth1, blue], addresses, routes, outward, dev)
    }

    /// The kernel takes packets for the addresses of interfaces in the device's VRF, or in none.
    private static func facts(
        _ links: [LinkInfo], _ addresses: [InterfaceAddress], _ routes: [Route4?], _ outward: Route4?, _ dev: String?
    ) -> UnderlayFacts {
        var facts = UnderlayFacts(
            links: links, addresses: addresses, device: links.first { $0.name == dev }, routes: routes, outward: outward)
        let vrf = facts.device.flatMap(facts.vrf)
        facts.ours = Set(addresses.filter { facts.vrf(of: facts.link($0.interfaceIndex)!) == vrf }.map(\.address))
        return facts
    }

    static func query(
        dev: String? = nil, remote: String? = nil, relays: [String] = [], relayPrefix: String? = nil,
        tun: LinkInfo? = nil
    ) -> UnderlayQuery {
        UnderlayQuery(
            device: dev, remote: remote.map { IPv4Address($0)! }, relays: relays.map { IPv4Address($0)! },
            relayPrefix: relayPrefix.map { try! IPv4Prefix(parsing: $0) }, tun: tun?.index)
    }
}
