import Testing
import TunnelCore

@Suite struct AddressPlanTests {
    /// RFC 5969's example, seen by 10.100.100.1: its own prefix is 2001:db8:6464:100::/56, the prefix of 10.100.200.2 is
    /// 2001:db8:64c8:200::/56. Static routes inside and around the domain, and two prefixes behind this host.
    static let plan = try! AddressPlan(
        domain: Domain(prefix: prefix6("2001:db8::/32"), relayPrefix: prefix4("10.0.0.0/8")), local: v4("10.100.100.1"),
        localPrefixes: [prefix6("fd00:1::/48"), prefix6("2001:db8:64c8:2ff::/64"), prefix6("3fff:1:2::/48")],
        routes: [
            (prefix6("2001:db8:64c8:280::/58"), v4("10.1.1.1")),  // part of 10.100.200.2's
            (prefix6("2001::/16"), v4("10.2.2.2")),  // around the domain
            (prefix6("3fff:1::/32"), v4("192.0.2.9")),
            (prefix6("2001:db8:6464:180::/60"), v4("10.3.3.3")),  // part of our own
        ])

    @Test(arguments: [
        // the domain
        ("2001:db8:64c8:200::1", Owner.embedded), ("2001:db8::", .embedded),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", .embedded),
        // our own prefix
        ("2001:db8:6464:100::", .local), ("2001:db8:6464:100::1", .local), ("2001:db8:6464:1ff:ffff:ffff:ffff:ffff", .local),
        ("2001:db8:6464:ff:ffff:ffff:ffff:ffff", .embedded), ("2001:db8:6464:200::", .embedded),
        // a route inside another host's prefix, and our local prefix inside that route
        ("2001:db8:64c8:27f:ffff:ffff:ffff:ffff", .embedded), ("2001:db8:64c8:280::", .endpoint(v4("10.1.1.1"))),
        ("2001:db8:64c8:2bf:ffff:ffff:ffff:ffff", .endpoint(v4("10.1.1.1"))), ("2001:db8:64c8:2c0::", .embedded),
        ("2001:db8:64c8:2fe::1", .embedded), ("2001:db8:64c8:2ff::1", .local),
        // a route inside our own prefix
        ("2001:db8:6464:180::1", .endpoint(v4("10.3.3.3"))), ("2001:db8:6464:190::1", .local),
        // a route around the domain does not take its addresses
        ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", .endpoint(v4("10.2.2.2"))), ("2001:db9::", .endpoint(v4("10.2.2.2"))),
        // a local prefix in a route outside
        ("3fff:1:1::1", .endpoint(v4("192.0.2.9"))), ("3fff:1:2::1", .local),
        ("fd00:1::1", .local), ("fd00:1:1::", .outside), ("2002:0a64:c802::1", .outside), ("3fff:2::", .outside),
        // what is never routed
        ("::", .invalid), ("::1", .invalid), ("::192.0.2.1", .invalid), ("::ffff:192.0.2.1", .invalid), ("::1:0:0", .outside),
        ("fe80::1", .linkLocal), ("febf::", .linkLocal), ("fec0::", .outside), ("ff02::1", .multicast),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", .multicast),
    ])
    func owners(address: String, owner: Owner) {
        #expect(Self.plan.owner(of: v6(address)) == owner)
    }

    @Test func withoutADomainThereAreOnlyRoutesAndLocalPrefixes() throws {
        let plan = try AddressPlan(
            domain: nil, local: v4("192.0.2.1"), localPrefixes: [prefix6("fd00:1::/48")],
            routes: [(prefix6("::/0"), v4("192.0.2.2"))])
        #expect(plan.owner(of: v6("2002:c000:201::1")) == .endpoint(v4("192.0.2.2")))
        #expect(plan.owner(of: v6("fd00:1::1")) == .local)
        #expect(plan.owner(of: v6("::1")) == .invalid)
        #expect(plan.owner(of: v6("fe80::1")) == .linkLocal)
    }

    // ::/96 and an ISATAP prefix, whose addresses end in their host's.
    @Test(arguments: [
        ("::10.9.9.9", Owner.trailing), ("::0.0.0.2", .trailing), ("::255.255.255.255", .trailing), ("::10.0.0.1", .local),
        ("::", .invalid), ("::1", .invalid), ("::ffff:10.9.9.9", .invalid), ("::1:0:0", .outside),
        ("2001:db8::5efe:10.9.9.9", .trailing), ("2001:db8::5efe:10.0.0.1", .local), ("2001:db8::200:5efe:10.9.9.9", .outside),
        ("2001:db8::1", .outside), ("fe80::5efe:10.9.9.9", .trailing), ("fe80::1", .linkLocal),
        ("2002:a00:1::5efe:10.9.9.9", .local), ("2002:a00:2::1", .embedded),
    ])
    func automaticAddresses(address: String, owner: Owner) throws {
        let plan = try AddressPlan(
            domain: .sixToFour, local: v4("10.0.0.1"),
            automatic: [.compatible, prefix6("2001:db8::5efe:0:0/96"), prefix6("fe80::5efe:0:0/96")])
        #expect(plan.owner(of: v6(address)) == owner)
    }

    @Test func aHostOutsideTheRelayPrefixOwnsNothing() throws {
        let domain = try Domain(prefix: prefix6("2001:db8::/32"), relayPrefix: prefix4("10.0.0.0/8"))
        let plan = try AddressPlan(domain: domain, local: v4("192.0.2.1"))
        // 192.0.2.1 would be 2001:db8:2:100::/56 if its first byte did not matter: that is 10.0.2.1's.
        #expect(plan.owner(of: v6("2001:db8:2:100::1")) == .embedded)
    }

    // A domain of all addresses leaves the reserved ones alone.
    @Test(arguments: [("::1", Owner.invalid), ("fe80::1", .linkLocal), ("ff02::1", .multicast), ("2001:db8::1", .embedded)])
    func reservedRangesInADomainOfAll(address: String, owner: Owner) throws {
        let domain = try Domain(prefix: prefix6("::/0"), relayPrefix: prefix4("0.0.0.0/0"))
        let plan = try AddressPlan(domain: domain, local: v4("192.0.2.1"))
        #expect(plan.owner(of: v6(address)) == owner)
    }

    static let reserved = [
        "::/128", "::1/128", "::/96", "::192.0.2.0/120", "::ffff:0:0/96", "::ffff:192.0.2.0/120", "fe80::/10", "fe80::/64",
        "febf::/16",
        "ff00::/8", "ff02::/16", "ff02::1/128",
    ]

    @Test(arguments: reserved)
    func refusesReservedRoutes(text: String) {
        #expect(throws: AddressPlanError.reserved(prefix6(text))) {
            try AddressPlan(domain: .sixToFour, local: v4("192.0.2.1"), routes: [(prefix6(text), v4("192.0.2.2"))])
        }
    }

    @Test(arguments: reserved)
    func refusesReservedLocalPrefixes(text: String) {
        #expect(throws: AddressPlanError.reserved(prefix6(text))) {
            try AddressPlan(domain: .sixToFour, local: v4("192.0.2.1"), localPrefixes: [prefix6(text)])
        }
    }

    // A prefix around a reserved range is no reserved prefix; the range stays out of it.
    @Test(arguments: [
        ("::/0", "2001:db8::1", Owner.endpoint(v4("192.0.2.2"))), ("::/0", "ff02::1", .multicast), ("::/0", "::1", .invalid),
        ("::/64", "::1:0:0:1", .endpoint(v4("192.0.2.2"))), ("::/64", "::ffff:192.0.2.1", .invalid),
        ("::/95", "::1:ffff:ffff", .endpoint(v4("192.0.2.2"))), ("::/95", "::ffff:ffff", .invalid),
        ("fc00::/6", "fe00::1", .endpoint(v4("192.0.2.2"))), ("fe00::/7", "fe80::1", .linkLocal),
        ("fec0::/10", "fec0::1", .endpoint(v4("192.0.2.2"))), ("64:ff9b::/96", "64:ff9b::1", .endpoint(v4("192.0.2.2"))),
    ])
    func acceptsTheRest(text: String, address: String, owner: Owner) throws {
        let plan = try AddressPlan(domain: .sixToFour, local: v4("192.0.2.1"), routes: [(prefix6(text), v4("192.0.2.2"))])
        #expect(plan.owner(of: v6(address)) == owner)
    }

    @Test(arguments: ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"])
    func refusesEndpointsThatAreNoHost(endpoint: String) {
        #expect(throws: AddressPlanError.endpointNotUnicast(prefix6("fd00::/8"), v4(endpoint))) {
            try AddressPlan(domain: nil, local: v4("192.0.2.1"), routes: [(prefix6("fd00::/8"), v4(endpoint))])
        }
    }

    @Test func refusesARouteToThisHost() {
        #expect(throws: AddressPlanError.endpointIsLocal(prefix6("fd00::/8"))) {
            try AddressPlan(domain: nil, local: v4("192.0.2.1"), routes: [(prefix6("fd00::/8"), v4("192.0.2.1"))])
        }
    }

    @Test(arguments: [
        (AddressPlanError.reserved(prefix6("fe80::/64")), "fe80::/64"),
        (.endpointNotUnicast(prefix6("fd00::/8"), v4("127.0.0.1")), "127.0.0.1"),
        (.endpointNotUnicast(prefix6("fd00::/8"), v4("127.0.0.1")), "fd00::/8"),
        (.endpointIsLocal(prefix6("fd00::/8")), "fd00::/8"),
    ])
    func errorsNameWhatIsWrong(error: AddressPlanError, word: String) { #expect(error.description.contains(word)) }
}
