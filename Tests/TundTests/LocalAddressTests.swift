import Testing
import TunnelCore

@testable import tund

private typealias Host = UnderlayFixture

/// What is asked on which host, and the address or (a part of) the refusal.
struct LocalAddressCase: CustomTestStringConvertible {
    let testDescription: String
    let query: UnderlayQuery
    let facts: UnderlayFacts
    let expected: String

    init(_ description: String, _ query: UnderlayQuery, _ facts: UnderlayFacts, _ expected: String) {
        (testDescription, self.query, self.facts, self.expected) = (description, query, facts, expected)
    }
}

@Suite struct LocalAddressTests {
    static let both = [Host.loopback, Host.first, Host.second]

    static let found: [LocalAddressCase] = [
        .init("the only one", Host.query(), Host.facts([Host.loopback, Host.first]), "10.0.0.1"),
        .init("not an address on lo", Host.query(), Host.facts([Host.announced, Host.second]), "10.9.0.1"),
        .init("not a link-local address", Host.query(), Host.facts([Host.linkLocal, Host.first]), "10.0.0.1"),
        .init(
            "one address on two interfaces", Host.query(), Host.facts([Host.first, Host.on(Host.eth1, "10.0.0.1", 32)]),
            "10.0.0.1"),
        .init("on the device", Host.query(dev: "eth1"), Host.facts(both, dev: "eth1"), "10.9.0.1"),
        .init("on an interface of the VRF", Host.query(dev: "blue"), Host.inVRF(both, dev: "blue"), "10.9.0.1"),
        .init(
            "on the VRF itself", Host.query(dev: "blue"),
            Host.inVRF([Host.first, Host.on(Host.blue, "10.9.9.9", 32)], dev: "blue"),
            "10.9.9.9"),
        .init("on the device in a VRF", Host.query(dev: "eth1"), Host.inVRF(both, dev: "eth1"), "10.9.0.1"),
        .init("in no VRF, unless one is asked for", Host.query(), Host.inVRF(both), "10.0.0.1"),
        .init("in the relay prefix", Host.query(relayPrefix: "10.9.0.0/16"), Host.facts(both), "10.9.0.1"),
        .init(
            "the source towards the remote", Host.query(remote: "10.9.0.2"),
            Host.facts(both, routes: [Host.route(Host.eth1, "10.9.0.1")], outward: Host.route(Host.eth0, "10.0.0.1")),
            "10.9.0.1"),
        .init(
            "the source towards the first relay that has one", Host.query(relays: ["10.1.0.1", "10.9.0.2"]),
            Host.facts(both, routes: [nil, Host.route(Host.eth1, "10.9.0.1")]), "10.9.0.1"),
        .init(
            "the source of the default route", Host.query(),
            Host.facts(both, outward: Host.route(Host.eth0, "10.0.0.1")), "10.0.0.1"),
        .init(
            "a relay prefix of length 0 confines nothing", Host.query(relayPrefix: "0.0.0.0/0"),
            Host.facts(both, outward: Host.route(Host.eth1, "10.9.0.1")), "10.9.0.1"),
        .init(
            "the only one, even if the route to the remote has another source", Host.query(dev: "eth1", remote: "10.0.0.2"),
            Host.facts(both, routes: [Host.route(Host.eth0, "10.0.0.1")], dev: "eth1"), "10.9.0.1"),
        .init(
            "an address on lo, from which the default route leaves", Host.query(),
            Host.facts(both + [Host.announced], outward: Host.route(Host.eth0, "10.200.0.1")), "10.200.0.1"),
        .init(
            "an address on lo, rather than the only one of a link", Host.query(),
            Host.facts([Host.announced, Host.first], outward: Host.route(Host.eth0, "10.200.0.1")), "10.200.0.1"),
        .init(
            "an address that only a route makes ours", Host.query(),
            Host.facts(both, outward: Host.route(Host.eth0, "203.0.113.5")), "203.0.113.5"),
        .init(
            "in the relay prefix, an address on lo if there is no other", Host.query(relayPrefix: "10.200.0.0/16"),
            Host.facts(both + [Host.announced]), "10.200.0.1"),
        .init(
            "not a source outside the relay prefix", Host.query(relayPrefix: "10.9.0.0/16"),
            Host.facts(both, outward: Host.route(Host.eth0, "10.0.0.1")), "10.9.0.1"),
        .init("not an address on the own TUN", Host.query(tun: Host.eth1), Host.facts(both), "10.0.0.1"),
        .init(
            "not a source on the own TUN", Host.query(tun: Host.eth1),
            Host.facts(both, outward: Host.route(Host.eth0, "10.9.0.1")), "10.0.0.1"),
    ]

    @Test(arguments: found) func finds(_ row: LocalAddressCase) throws {
        #expect(try LocalAddress.choose(row.query, row.facts) == IPv4Address(row.expected))
    }

    /// 10.0.0.1 on eth0 was chosen once.
    static let followed: [LocalAddressCase] = [
        .init("it is still there", Host.query(), Host.facts([Host.first]), "10.0.0.1"),
        .init("one more on its interface", Host.query(), Host.facts([Host.first, Host.third]), "10.0.0.1"),
        .init("one more elsewhere", Host.query(), Host.facts(both), "10.0.0.1"),
        .init(
            "the way out leads through its interface, from a newer address", Host.query(),
            Host.facts([Host.first, Host.third], outward: Host.route(Host.eth0, "10.0.0.7")), "10.0.0.1"),
        .init(
            "the way out has moved", Host.query(), Host.facts(both, outward: Host.route(Host.eth1, "10.9.0.1")), "10.9.0.1"),
        .init(
            "the way to the remote has not", Host.query(remote: "10.0.0.2"),
            Host.facts(both, routes: [Host.route(Host.eth0, "10.0.0.1")], outward: Host.route(Host.eth1, "10.9.0.1")),
            "10.0.0.1"),
        .init("replaced on its interface", Host.query(), Host.facts([Host.third, Host.second]), "10.0.0.7"),
        .init("replaced, no other interface", Host.query(), Host.facts([Host.third]), "10.0.0.7"),
        .init("gone, another one left that no route prefers", Host.query(), Host.facts([Host.second]), "no route leads out from"),
        .init(
            "gone, and the way out leads elsewhere", Host.query(),
            Host.facts([Host.second], outward: Host.route(Host.eth1, "10.9.0.1")), "10.9.0.1"),
        .init(
            "gone, another one in the relay prefix", Host.query(relayPrefix: "10.0.0.0/8"), Host.facts([Host.second]),
            "10.9.0.1"),
        .init("gone", Host.query(), Host.facts([Host.loopback]), "no interface has a global IPv4 address"),
    ]

    @Test(arguments: followed) func follows(_ row: LocalAddressCase) {
        do throws(ControlError) {
            let old = IPv4Address(10, 0, 0, 1)
            #expect(try LocalAddress.follow(old, on: Host.eth0.index, row.query, row.facts) == IPv4Address(row.expected))
        } catch {
            #expect(error.description.contains(row.expected))
        }
    }

    @Test func anInterfaceThatIsDownHasNoAddress() throws {
        var facts = Host.facts(Self.both, outward: Host.route(Host.eth1, "10.9.0.1"))
        facts.links = [Host.lo, LinkInfo(index: Host.eth0.index, name: "eth0", mtu: 1500, flags: 0x1002), Host.eth1]
        facts.ours = [IPv4Address(10, 9, 0, 1)]  // its local routes went with it
        let old = IPv4Address(10, 0, 0, 1)
        #expect(try LocalAddress.follow(old, on: Host.eth0.index, Host.query(), facts) == IPv4Address(10, 9, 0, 1))
        facts.outward = nil
        #expect(throws: ControlError.self) { try LocalAddress.follow(old, on: Host.eth0.index, Host.query(), facts) }
    }

    static let refused: [LocalAddressCase] = [
        .init("no address at all", Host.query(), Host.facts([Host.loopback]), "no interface has a global IPv4 address"),
        .init(
            "none on the device", Host.query(dev: "eth1"), Host.facts([Host.first], dev: "eth1"),
            "eth1 has no global IPv4 address (this host has 10.0.0.1 (eth0); pass --local A"),
        .init(
            "none in the relay prefix", Host.query(relayPrefix: "192.168.0.0/16"), Host.facts([Host.first]),
            "no interface has a global IPv4 address in the relay prefix 192.168.0.0/16"),
        .init("several", Host.query(), Host.facts(both), "there are 2: 10.0.0.1 (eth0), 10.9.0.1 (eth1) (pass --local A)"),
        .init(
            "the remote is an address of ours, whose route says nothing", Host.query(remote: "10.9.0.1"),
            Host.facts(both, routes: [Host.route(Host.lo, "10.9.0.1", .local)]), "there are 2"),
        .init(
            "no such device", Host.query(dev: "eth7"), Host.facts(both),
            "cannot use --dev eth7: there is no such interface (this host has lo, eth0, eth1)"),
    ]

    @Test(arguments: refused) func refuses(_ row: LocalAddressCase) {
        let error = #expect(throws: ControlError.self) { try LocalAddress.choose(row.query, row.facts) }
        #expect(error?.description.contains(row.expected) == true, "\(error?.description ?? "")")
    }

    @Test func takesAnAddressOfAnyInterface() throws {
        for address in ["10.0.0.1", "10.9.0.1", "10.200.0.1", "169.254.7.7"] {
            let facts = Host.facts([Host.loopback, Host.announced, Host.first, Host.second, Host.linkLocal])
            #expect(try LocalAddress.check(IPv4Address(address)!, Host.query(), facts) == [])
        }
    }

    @Test func warnsOfAnAddressOffTheDevice() throws {
        let warnings = try LocalAddress.check(
            IPv4Address(10, 0, 0, 1), Host.query(dev: "eth1"), Host.facts(Self.both, dev: "eth1"))
        #expect(warnings == ["10.0.0.1 is an address of this host, but not of eth1"])
    }

    @Test(arguments: [
        ("10.0.0.9", nil, "no interface has 10.0.0.9 (this host has 10.0.0.1 (eth0), 10.9.0.1 (eth1))"),
        ("127.0.0.1", nil, "not the address of one host"),
        ("10.0.0.1", "eth7", "there is no such interface"),
    ])
    func refusesTheGivenAddress(_ address: String, _ dev: String?, _ expected: String) {
        let error = #expect(throws: ControlError.self) {
            try LocalAddress.check(IPv4Address(address)!, Host.query(dev: dev), Host.facts(Self.both, dev: dev))
        }
        #expect(error?.description.contains(expected) == true, "\(error?.description ?? "")")
    }

    @Test func takesAnAddressThatOnlyARouteMakesOurs() throws {
        var facts = Host.facts(Self.both)
        facts.ours.insert(IPv4Address(203, 0, 113, 5))
        #expect(try LocalAddress.check(IPv4Address(203, 0, 113, 5), Host.query(), facts) == [])
        #expect(try LocalAddress.follow(IPv4Address(203, 0, 113, 5), on: 2, Host.query(), facts) == IPv4Address(203, 0, 113, 5))
    }

    /// Time may bring an address, but not another command line.
    @Test func knowsWhatTimeMayMend() {
        func isTransient(_ query: UnderlayQuery, _ facts: UnderlayFacts) -> Bool? {
            do throws(ControlError) {
                _ = try LocalAddress.choose(query, facts)
                return nil
            } catch {
                return error.isTransient
            }
        }
        #expect(isTransient(Host.query(), Host.facts([Host.loopback])) == true)
        #expect(isTransient(Host.query(dev: "eth1"), Host.facts([Host.first], dev: "eth1")) == true)
        #expect(isTransient(Host.query(), Host.facts(Self.both)) == false)
        #expect(isTransient(Host.query(dev: "eth7"), Host.facts(Self.both)) == false)
        let gone = UnderlayQuery(device: "eth7", deviceIndex: 7)
        #expect(isTransient(gone, Host.facts(Self.both)) == true, "it was there when the tunnel started")
    }
}
