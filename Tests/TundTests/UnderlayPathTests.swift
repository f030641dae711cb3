import Testing
import TunnelCore

@testable import tund

private typealias Host = UnderlayFixture

struct UnderlayPathCase: CustomTestStringConvertible {
    let testDescription: String
    let local: String
    let query: UnderlayQuery
    let facts: UnderlayFacts
    let interface: String
    let mtu: Int
    let broadcast: String?

    init(
        _ description: String, _ local: String, _ query: UnderlayQuery, _ facts: UnderlayFacts, _ interface: String, _ mtu: Int,
        _ broadcast: String?
    ) {
        testDescription = description
        (self.local, self.query, self.facts) = (local, query, facts)
        (self.interface, self.mtu, self.broadcast) = (interface, mtu, broadcast)
    }
}

@Suite struct UnderlayPathTests {
    static let all = [Host.loopback, Host.announced, Host.first, Host.second]

    static let paths: [UnderlayPathCase] = [
        .init("the local address' interface", "10.0.0.1", Host.query(), Host.facts(all), "eth0", 1500, "10.0.0.255"),
        .init("a broadcast address that nobody set", "10.9.0.1", Host.query(), Host.facts(all), "eth1", 1400, "10.9.255.255"),
        .init(
            "a point-to-point subnet has none", "192.0.2.1", Host.query(),
            Host.facts([Host.on(Host.eth0, "192.0.2.1", 31)]), "eth0", 1500, nil),
        .init("--dev goes first", "10.0.0.1", Host.query(dev: "eth1"), Host.facts(all, dev: "eth1"), "eth1", 1400, "10.0.0.255"),
        .init("--dev in a VRF", "10.9.0.1", Host.query(dev: "eth1"), Host.inVRF(all, dev: "eth1"), "eth1", 1400, "10.9.255.255"),
        .init(
            "of a VRF, the interface with the address", "10.9.0.1", Host.query(dev: "blue"), Host.inVRF(all, dev: "blue"), "eth1",
            1400,
            "10.9.255.255"),
        .init(
            "of a VRF, not an interface outside with the same address", "10.9.0.1", Host.query(dev: "blue"),
            Host.inVRF([Host.on(Host.eth0, "10.9.0.1", 24)] + all, dev: "blue"), "eth1", 1400, "10.9.255.255"),
        .init(
            "the way to the remote, and its mtu metric", "10.0.0.1", Host.query(remote: "10.77.0.1"),
            Host.facts(all, routes: [Host.route(Host.eth1, "10.9.0.1", mtu: 1300)]), "eth1", 1300, "10.0.0.255"),
        .init(
            "an mtu metric above the interface's changes nothing", "10.0.0.1", Host.query(remote: "10.77.0.1"),
            Host.facts(all, routes: [Host.route(Host.eth0, "10.0.0.1", mtu: 9000)]), "eth0", 1500, "10.0.0.255"),
        .init(
            "the least of the relays' routes", "10.0.0.1", Host.query(relays: ["10.0.0.2", "10.77.0.1", "10.78.0.1"]),
            Host.facts(
                all, routes: [Host.route(Host.eth0, "10.0.0.1"), Host.route(Host.eth0, "10.0.0.1", mtu: 1450), nil]),
            "eth0", 1450, "10.0.0.255"),
        .init(
            "a route over another interface does not count", "10.0.0.1", Host.query(relays: ["10.9.0.2"]),
            Host.facts(all, routes: [Host.route(Host.eth1, "10.9.0.1", mtu: 1300)]), "eth0", 1500, "10.0.0.255"),
        .init(
            "the mtu of the way to all others", "10.0.0.1", Host.query(),
            Host.facts(all, outward: Host.route(Host.eth0, "10.0.0.1", mtu: 1420)), "eth0", 1420, "10.0.0.255"),
        .init(
            "the way to all others, not the interface with the address", "10.0.0.1", Host.query(),
            Host.facts(all, outward: Host.route(Host.eth1, "10.0.0.1")), "eth1", 1400, "10.0.0.255"),
        .init(
            "a remote is not one of all others", "10.0.0.1", Host.query(remote: "10.77.0.1"),
            Host.facts(all, routes: [nil], outward: Host.route(Host.eth1, "10.0.0.1", mtu: 1300)), "eth0", 1500, "10.0.0.255"),
        .init(
            "from an address on lo, the way out", "10.200.0.1", Host.query(),
            Host.facts(all, outward: Host.route(Host.eth1, "10.9.0.1")), "eth1", 1400, nil),
        .init(
            "from an address on lo, the relay's interface where no other way is known", "10.200.0.1",
            Host.query(relays: ["10.0.0.2"]),
            Host.facts(all, routes: [Host.route(Host.eth0, "10.0.0.1")]), "eth0", 1500, nil),
        .init(
            "from an address on lo, and no way known, the narrowest interface", "10.200.0.1", Host.query(), Host.facts(all),
            "eth1", 1400, nil),
        .init(
            "never the own TUN", "10.9.0.1", Host.query(remote: "10.77.0.1", tun: Host.eth0),
            Host.facts(all, routes: [Host.route(Host.eth0, "10.0.0.1")]), "eth1", 1400, "10.9.255.255"),
    ]

    @Test(arguments: paths) func resolves(_ row: UnderlayPathCase) throws {
        let path = try UnderlayPath.resolve(local: IPv4Address(row.local)!, row.query, row.facts)
        #expect(path.interfaceName == row.interface)
        #expect(path.mtu == row.mtu)
        #expect(path.broadcast == row.broadcast.map { IPv4Address($0)! })
    }

    @Test func refusesAWayThatEndsHere() {
        let facts = Host.facts(Self.all, routes: [Host.route(Host.lo, "10.9.0.1", .local)])
        #expect(throws: ControlError("send tunnel packets to 10.9.0.1", reason: "it is an address of this host")) {
            try UnderlayPath.resolve(local: IPv4Address(10, 0, 0, 1), Host.query(remote: "10.9.0.1"), facts)
        }
        #expect(throws: ControlError.self) {
            try UnderlayPath.resolve(
                local: IPv4Address(10, 200, 0, 1), Host.query(), Host.facts([Host.loopback, Host.announced]))
        }
    }

    /// Hosts of the domain's network, of which some are rarely this host; never an address outside.
    @Test(arguments: [
        ("10.0.0.0/8", ["10.128.0.1", "10.255.255.254", "10.0.0.1", "10.0.0.2"]),
        ("192.0.2.0/30", ["192.0.2.3", "192.0.2.2", "192.0.2.1", "192.0.2.0"]),
        ("192.0.2.4/31", ["192.0.2.5", "192.0.2.4"]),
        ("192.0.2.4/32", ["192.0.2.4"]),
        ("0.0.0.0/0", ["198.41.0.4"]),
    ])
    func asksForTheDomainsNetwork(_ network: String, _ expected: [String]) {
        #expect(Host.query(relayPrefix: network).outwardProbes.map(\.description) == expected)
    }

    @Test(arguments: [(1500, 1480), (1300, 1280), (1299, 1280), (576, 1280), (9000, 8980), (65535, 65515), (65536, 65515)])
    func leavesRoomForTheIPv4Header(_ mtu: Int, _ expected: Int) {
        let path = UnderlayPath(interfaceIndex: 2, interfaceName: "eth0", mtu: mtu, broadcast: nil)
        #expect(path.tunnelMTU == expected)
    }
}
