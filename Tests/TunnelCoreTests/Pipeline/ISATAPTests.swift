import Testing
import TunnelCore

/// An ISATAP link (RFC 5214; net/ipv6/sit.c `isatap_chksrc`), seen by 10.0.0.1 with the prefix 2001:db8:1::/64 and the router
/// 10.0.0.254.
@Suite struct ISATAPTests {
    static let policy: TunnelPolicy = make()
    static let router: TunnelPolicy = make(isRouter: true)

    static func make(isRouter: Bool = false) -> TunnelPolicy {
        let peers = try! ISATAPPeers(
            local: v4("10.0.0.1"), prefixes: [prefix6("2001:db8:1::/64")], routers: isRouter ? [] : [v4("10.0.0.254")],
            isRouter: isRouter, localPrefixes: [prefix6("fd77::/48")], routes: [(prefix6("3fff:a::/32"), v4("192.0.2.9"))])
        var policy = TunnelPolicy(local: v4("10.0.0.1"), peers: .isatap(peers))
        policy.broadcast = v4("10.255.255.255")
        return policy
    }

    // The u bit as the kernel sets it.
    @Test(arguments: [
        ("10.0.0.1", "fe80::5efe:a00:1"), ("192.168.1.1", "fe80::5efe:c0a8:101"), ("172.31.0.1", "fe80::5efe:ac1f:1"),
        ("169.254.0.1", "fe80::5efe:a9fe:1"), ("192.0.2.1", "fe80::5efe:c000:201"), ("198.18.0.1", "fe80::5efe:c612:1"),
        ("192.88.99.1", "fe80::5efe:c058:6301"), ("8.8.8.8", "fe80::200:5efe:808:808"), ("11.0.0.1", "fe80::200:5efe:b00:1"),
        ("172.32.0.1", "fe80::200:5efe:ac20:1"), ("100.64.0.1", "fe80::200:5efe:6440:1"),
        ("198.51.100.1", "fe80::200:5efe:c633:6401"),
    ])
    func addresses(host: String, address: String) {
        #expect(IPv6Address.isatap(v4(host), in: .linkLocal) == v6(address))
    }

    static let (us, peer) = ("2001:db8:1::5efe:10.0.0.1", "2001:db8:1::5efe:10.0.0.2")
    static let elsewhere = "3fff:eee::1"
    /// The beginning of a router advertisement.
    static let advertisement: [UInt8] = [134, 0, 0, 0, 64, 0, 7, 8]

    struct Downlink: CustomTestStringConvertible {
        let name: String
        let policy: TunnelPolicy
        let packet: [UInt8]
        /// nil: it is delivered.
        let strict: DropReason?, sit: DropReason?
        var testDescription: String { name }

        init(
            _ name: String, _ policy: TunnelPolicy = ISATAPTests.policy, via outerSource: String = "10.0.0.2",
            from source: String = peer, to destination: String = us, next: UInt8 = 59,
            payload: [UInt8] = Array("12345678".utf8), strict: DropReason? = nil, sit: DropReason? = nil
        ) {
            packet = Packets.outer(outerSource, "10.0.0.1", Packets.inner(source, destination, next: next, payload: payload))
            (self.name, self.policy, self.strict, self.sit) = (name, policy, strict, sit)
        }
    }

    static let downlink: [Downlink] = [
        Downlink("from its own address"),
        Downlink("with the u bit", from: "2001:db8:1::200:5efe:10.0.0.2"),
        Downlink("link-local", from: "fe80::5efe:10.0.0.2", to: "fe80::5efe:10.0.0.1"),
        Downlink("link-local, with the u bit", from: "fe80::200:5efe:10.0.0.2", to: "fe80::200:5efe:10.0.0.1"),
        Downlink("any IPv4 host", via: "192.0.2.7", from: "2001:db8:1::5efe:192.0.2.7"),
        Downlink("to a local prefix", to: "fd77::1"),
        Downlink("another's address", via: "10.0.0.3", strict: .downlinkInnerSourceSpoofed, sit: .downlinkInnerSourceSpoofed),
        Downlink(
            "another's link-local address", via: "10.0.0.3", from: "fe80::5efe:10.0.0.2", strict: .downlinkInnerSourceSpoofed,
            sit: .downlinkInnerSourceSpoofed),
        Downlink(
            "no ISATAP address", from: "2001:db8:1::2", strict: .downlinkInnerSourceUnauthorized,
            sit: .downlinkInnerSourceSpoofed),
        Downlink(
            "not on the link", from: "2001:db8:2::5efe:10.0.0.2", strict: .downlinkInnerSourceUnauthorized,
            sit: .downlinkInnerSourceSpoofed),
        Downlink("from outside", from: elsewhere, strict: .downlinkInnerSourceUnauthorized, sit: .downlinkInnerSourceSpoofed),
        Downlink(
            "link-local, no ISATAP address", from: "fe80::2", strict: .downlinkInnerSourceInvalid,
            sit: .downlinkInnerSourceSpoofed),
        Downlink("our address", from: us, strict: .downlinkInnerSourceSpoofed, sit: .downlinkInnerSourceSpoofed),
        // The potential router list
        Downlink("a router, from outside", via: "10.0.0.254", from: elsewhere),
        Downlink("a router, for another host", via: "10.0.0.254"),
        Downlink("a router's advertisement", via: "10.0.0.254", from: "fe80::5efe:10.0.0.254", to: "fe80::5efe:10.0.0.1"),
        Downlink("the same to all nodes", via: "10.0.0.254", from: "fe80::5efe:10.0.0.254", to: "ff02::1"),
        Downlink("the same from another address", via: "10.0.0.254", from: "fe80::1", to: "ff02::1"),
        Downlink(
            "a host's advertisement", from: "fe80::5efe:10.0.0.2", to: "fe80::5efe:10.0.0.1", next: 58, payload: advertisement,
            strict: .downlinkInnerSourceUnauthorized, sit: .downlinkInnerSourceUnauthorized),
        Downlink(
            "the router's advertisement, by its type", via: "10.0.0.254", from: "fe80::5efe:10.0.0.254",
            to: "fe80::5efe:10.0.0.1", next: 58, payload: advertisement),
        Downlink("a host's solicitation", from: "fe80::5efe:10.0.0.2", next: 58, payload: [133] + advertisement.dropFirst()),
        Downlink("a router speaks for us", via: "10.0.0.254", from: us, strict: .downlinkInnerSourceSpoofed),
        Downlink("a router, IPv4-mapped", via: "10.0.0.254", from: "::ffff:10.0.0.2", strict: .downlinkInnerSourceInvalid),
        Downlink("a host to all nodes", from: "fe80::5efe:10.0.0.2", to: "ff02::1", strict: .downlinkInnerDestinationInvalid),
        Downlink("a route, by its endpoint", via: "192.0.2.9", from: "3fff:a::1"),
        Downlink(
            "a route, by another", from: "3fff:a::1", strict: .downlinkInnerSourceUnauthorized,
            sit: .downlinkInnerSourceSpoofed),
        // Destinations
        Downlink("to another host", to: "2001:db8:1::5efe:10.0.0.3", strict: .downlinkInnerDestinationForeign),
        Downlink("to outside", to: elsewhere, strict: .downlinkInnerDestinationForeign),
        Downlink("to outside, we are a router", router, to: elsewhere),
        Downlink(
            "to another host, we are a router", router, to: "2001:db8:1::5efe:10.0.0.3",
            strict: .downlinkInnerDestinationForeign),
        Downlink("to ::1", to: "::1", strict: .downlinkInnerDestinationInvalid),
        // Besides
        Downlink(
            "our own outer source", via: "10.0.0.1", from: us, strict: .downlinkOuterSourceMartian,
            sit: .downlinkInnerSourceSpoofed),
        Downlink("nested", next: 41, strict: .downlinkNestedTunnel),
    ]

    @Test(arguments: downlink)
    func judgesTheDownlink(row: Downlink) {
        for (level, reason) in [(SourceCheck.strict, row.strict), (.sit, row.sit), (.off, nil)] {
            let verdict = row.policy.with(sourceCheck: level).decapsulate(row.packet.raw)
            let expected: DownlinkVerdict = reason.map { .drop($0) } ?? DecapsulateTests.deliver()
            #expect(verdict == expected, "\(level)")
        }
    }

    struct Uplink: CustomTestStringConvertible {
        let name: String
        let policy: TunnelPolicy
        let packet: [UInt8]
        let strict: UplinkVerdict, sit: UplinkVerdict
        var testDescription: String { name }

        init(
            _ name: String, _ policy: TunnelPolicy = ISATAPTests.policy, from source: String = us, to destination: String,
            strict: UplinkVerdict, sit: UplinkVerdict? = nil
        ) {
            packet = Packets.inner(source, destination)
            (self.name, self.policy, self.strict, self.sit) = (name, policy, strict, sit ?? strict)
        }
    }

    static func send(_ host: String) -> UplinkVerdict { EncapsulateTests.send(host) }

    static let uplink: [Uplink] = [
        Uplink("to a host of the link", to: peer, strict: send("10.0.0.2")),
        Uplink("with the u bit", to: "2001:db8:1::200:5efe:192.0.2.7", strict: send("192.0.2.7")),
        Uplink("link-local", from: "fe80::5efe:10.0.0.1", to: "fe80::5efe:10.0.0.254", strict: send("10.0.0.254")),
        Uplink("no ISATAP address: a router's business", to: "2001:db8:1::2", strict: send("10.0.0.254")),
        Uplink("an ISATAP address of another link", to: "2001:db8:2::5efe:10.0.0.2", strict: send("10.0.0.254")),
        Uplink("outside", to: elsewhere, strict: send("10.0.0.254")),
        Uplink("a route", to: "3fff:a::1", strict: send("192.0.2.9")),
        Uplink("from a local prefix", from: "fd77::1", to: peer, strict: send("10.0.0.2")),
        Uplink("no router", router, to: elsewhere, strict: .drop(.uplinkNoRoute)),
        Uplink("from outside", from: elsewhere, to: peer, strict: .drop(.uplinkForeignSource), sit: send("10.0.0.2")),
        Uplink("from outside, we are a router", router, from: elsewhere, to: peer, strict: send("10.0.0.2")),
        Uplink("another's source", from: peer, to: peer, strict: .drop(.uplinkForeignSource), sit: send("10.0.0.2")),
        Uplink("to all routers", from: "fe80::5efe:10.0.0.1", to: "ff02::2", strict: .drop(.uplinkMulticastDestination)),
        Uplink("link-local, no ISATAP address", to: "fe80::2", strict: .drop(.uplinkLinkLocalDestination)),
        Uplink("to ourselves", to: us, strict: .drop(.uplinkLocalDestination)),
        Uplink("to a group's address", to: "2001:db8:1::5efe:224.0.0.1", strict: .drop(.uplinkMartianDestination)),
        Uplink(
            "to our broadcast address", to: "2001:db8:1::5efe:10.255.255.255", strict: .drop(.uplinkMartianDestination),
            sit: send("10.255.255.255")),
        Uplink("to ::10.0.0.2", to: "::10.0.0.2", strict: .drop(.uplinkNoRoute)),
    ]

    @Test(arguments: uplink)
    func judgesTheUplink(row: Uplink) {
        for (level, expected) in [(SourceCheck.strict, row.strict), (.sit, row.sit), (.off, row.sit)] {
            let verdict = row.policy.with(sourceCheck: level).encapsulate(row.packet.raw)
            #expect(verdict == expected, "\(level)")
        }
    }

    @Test func errorsComeFromOurAddressOfTheLink() {
        #expect(Self.policy.errorSource == v6(Self.us))
        let peers = try! ISATAPPeers(local: v4("10.0.0.1"), prefixes: [])
        #expect(TunnelPolicy(local: v4("10.0.0.1"), peers: .isatap(peers)).errorSource == v6("fe80::5efe:10.0.0.1"))
    }

    @Test func refusesReservedPrefixes() {
        #expect(throws: AddressPlanError.reserved(prefix6("ff02::/64"))) {
            try ISATAPPeers(local: v4("10.0.0.1"), prefixes: [prefix6("ff02::/64")])
        }
    }
}
