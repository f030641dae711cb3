import Testing
import TunnelCore

@Suite struct EncapsulateTests {
    struct Row: CustomTestStringConvertible {
        let name: String
        let policy: TunnelPolicy
        let packet: [UInt8]
        let verdict: UplinkVerdict
        var testDescription: String { name }

        init(_ name: String, _ policy: TunnelPolicy, _ packet: [UInt8], _ verdict: UplinkVerdict) {
            (self.name, self.policy, self.packet, self.verdict) = (name, policy, packet, verdict)
        }
    }

    static func send(_ destination: String, _ innerLength: Int = 48, ttl: UInt8 = 64, tos: UInt8 = 0) -> UplinkVerdict {
        .send(OuterHeader(destination: v4(destination), ttl: ttl, tos: tos), innerLength: innerLength)
    }

    static let (us, peer) = ("2001:db8:6464:100::1", "2001:db8:64c8:200::2")
    static let (us6to4, peer6to4) = ("2002:c000:201::1", "2002:c633:6407::1")
    static let elsewhere = "3fff:eee::1"
    static func inner(
        to destination: String = peer, from source: String = us, next: UInt8 = 59, payload: [UInt8] = Array("12345678".utf8),
        trafficClass: UInt8 = 0, hopLimit: UInt8 = 64
    ) -> [UInt8] {
        Packets.inner(source, destination, next: next, payload: payload, trafficClass: trafficClass, hopLimit: hopLimit)
    }

    // MARK: What passes

    static let passing = [
        Row("to the embedded host", Policies.site, inner(), send("10.100.200.2")),
        Row("a header alone", Policies.site, inner(payload: []), send("10.100.200.2", 40)),
        Row("bytes behind the payload are not sent", Policies.site, inner() + [0xEE, 0xEE, 0xEE], send("10.100.200.2")),
        Row(
            "the last address of our prefix", Policies.site, inner(from: "2001:db8:6464:1ff:ffff:ffff:ffff:ffff"),
            send("10.100.200.2")),
        Row("to a border relay itself", Policies.site, inner(to: "2001:db8:0:100::1"), send("10.0.0.1")),
        Row("the host after ours", Policies.site, inner(to: "2001:db8:6464:200::1"), send("10.100.100.2")),
        Row(
            "the longest that fits IPv4", Policies.site, inner(payload: Array(repeating: 0, count: 65475)),
            send("10.100.200.2", 65515)),
        Row("6to4", Policies.sixToFour, inner(to: peer6to4, from: us6to4), send("198.51.100.7")),
        Row(
            "a domain of whole IPv4 addresses", Policies.wholeIPv4, inner(to: "fd00:0:c633:6407::2", from: "fd00:0:c000:201::1"),
            send("198.51.100.7")),
        Row("outside, to the relay", Policies.oneRelay, inner(to: elsewhere), send("192.0.2.33")),
        Row("6to4 addresses are outside of another domain", Policies.oneRelay, inner(to: peer6to4), send("192.0.2.33")),
        Row("in the domain, past the relay", Policies.oneRelay, inner(), send("10.100.200.2")),
        Row("a route inside the domain", Policies.routed, inner(to: "2001:db8:64c8:280::1"), send("10.1.1.1")),
        Row(
            "the last address of the route", Policies.routed, inner(to: "2001:db8:64c8:2bf:ffff:ffff:ffff:ffff"), send("10.1.1.1")
        ),
        Row("behind the route", Policies.routed, inner(to: "2001:db8:64c8:2c0::1"), send("10.100.200.2")),
        Row("a route outside the domain", Policies.routed, inner(to: "3fff:a::1"), send("192.0.2.9")),
        Row("outside of every route", Policies.routed, inner(to: "3fff:b::1"), send("192.0.2.33")),
        Row("from a local prefix", Policies.routed, inner(from: "fd00:1::1"), send("10.100.200.2")),
        Row("border relay: a source outside", Policies.borderRelay, inner(from: elsewhere), send("10.100.200.2")),
        Row("border relay: our own source", Policies.borderRelay, inner(from: "2001:db8:0:100::1"), send("10.100.200.2")),
        Row(
            "border relay: a source on a route outside", Policies.routedBorderRelay, inner(from: "3fff:a::1"),
            send("10.100.200.2")),
        Row("border relay: to a route", Policies.routedBorderRelay, inner(to: "3fff:a::1", from: elsewhere), send("192.0.2.9")),
        Row("remote: any addresses", Policies.remote, inner(to: elsewhere, from: us), send("198.51.100.7")),
        Row("remote: link-local", Policies.remote, inner(to: "fe80::c633:6407", from: "fe80::c000:201"), send("198.51.100.7")),
        Row("remote: multicast", Policies.remote, inner(to: "ff02::2", from: "fe80::c000:201"), send("198.51.100.7")),
        Row(
            "remote: from the unspecified address", Policies.remote, inner(to: "ff02::1:ff00:1", from: "::"), send("198.51.100.7")
        ),
        Row(
            "remote: nobody looks at an embedded host", Policies.remote, inner(to: "2002:7f00:1::1", from: us6to4),
            send("198.51.100.7")),
        // Private addresses: refused by a public host in 2002::/16 only.
        Row(
            "6to4 of private hosts", Policies.privateSixToFour, inner(to: "2002:a00:2::1", from: "2002:a00:1::1"),
            send("10.0.0.2")),
        Row(
            "6to4 from a private host to a public one", Policies.privateSixToFour, inner(to: peer6to4, from: "2002:a00:1::1"),
            send("198.51.100.7")),
        Row(
            "private in another domain", Policies.wholeIPv4, inner(to: "fd00:0:a00:2::1", from: "fd00:0:c000:201::1"),
            send("10.0.0.2")),
        Row("just outside 172.16/12", Policies.sixToFour, inner(to: "2002:ac20:1::1", from: us6to4), send("172.32.0.1")),
        Row("just outside 192.168/16", Policies.sixToFour, inner(to: "2002:c0a9:1::1", from: us6to4), send("192.169.0.1")),
        // Addresses next to the martian ones.
        Row("1.0.0.0", Policies.sixToFour, inner(to: "2002:100::1", from: us6to4), send("1.0.0.0")),
        Row("126.255.255.255", Policies.sixToFour, inner(to: "2002:7eff:ffff::1", from: us6to4), send("126.255.255.255")),
        Row("223.255.255.255", Policies.sixToFour, inner(to: "2002:dfff:ffff::1", from: us6to4), send("223.255.255.255")),
        Row(
            "another network's broadcast address", Policies.sixToFour, inner(to: "2002:c000:1ff::1", from: us6to4),
            send("192.0.1.255")),
        Row(
            "no broadcast address known", Policies.site.with(broadcast: "0.0.0.0"), inner(to: "2001:db8:ffff:ff00::1"),
            send("10.255.255.255")),
    ]

    // Next headers that are no tunnels, and chains that end in none.
    static let otherPayloads: [Row] = [
        ("TCP", 6, hex("040001bb00000000000000005002200000000000")),
        ("UDP", 17, hex("0400003500080000")),
        ("ICMPv6", 58, hex("8000000000000000")),
        ("GRE", 47, hex("0000000000000000")),
        ("ESP", 50, hex("0000000100000002")),
        ("SCTP", 132, hex("0000000000000000")),
        ("UDP that begins like an IPv6 header", 17, hex("6000000000002940")),
        ("destination options, UDP", 60, Packets.extensionHeader(next: 17) + hex("0400003500080000")),
        ("hop-by-hop, ICMPv6", 0, Packets.extensionHeader(next: 58) + hex("8000000000000000")),
        ("first fragment of UDP", 44, Packets.fragmentHeader(next: 17, more: true) + hex("0400003500080000")),
        // 41 in a place where it is data
        (
            "later fragment, data that looks like a header", 44,
            Packets.fragmentHeader(next: 60, offset: 3, more: false) + hex("2900010400000000")
        ),
        ("no next header, then a 41", 60, Packets.extensionHeader(next: 59) + Packets.extensionHeader(next: 41)),
    ].map { Row($0.0, Policies.site, inner(next: $0.1, payload: $0.2), send("10.100.200.2", 40 + $0.2.count)) }

    static let outerFields = [
        Row("TTL as configured", Policies.site.with(ttl: .fixed(7)), inner(hopLimit: 200), send("10.100.200.2", ttl: 7)),
        Row(
            "TTL as configured, hop limit 0", Policies.site.with(ttl: .fixed(255)), inner(hopLimit: 0),
            send("10.100.200.2", ttl: 255)),
        Row("TTL inherited", Policies.site.with(ttl: .inherit), inner(hopLimit: 63), send("10.100.200.2", ttl: 63)),
        Row("TTL inherited, 1", Policies.site.with(ttl: .inherit), inner(hopLimit: 1), send("10.100.200.2", ttl: 1)),
        Row("TTL inherited, 255", Policies.site.with(ttl: .inherit), inner(hopLimit: 255), send("10.100.200.2", ttl: 255)),
        Row(
            "TTL inherited, to a relay", Policies.oneRelay.with(ttl: .inherit), inner(to: elsewhere, hopLimit: 9),
            send("192.0.2.33", ttl: 9)),
        Row("TTL inherited, remote", Policies.remote.with(ttl: .inherit), inner(hopLimit: 9), send("198.51.100.7", ttl: 9)),
        Row("DSCP inherited, Not-ECT", Policies.site, inner(trafficClass: 0xB8), send("10.100.200.2", tos: 0xB8)),
        Row("DSCP inherited, ECT(1)", Policies.site, inner(trafficClass: 0xB9), send("10.100.200.2", tos: 0xB9)),
        Row("DSCP inherited, ECT(0)", Policies.site, inner(trafficClass: 0x02), send("10.100.200.2", tos: 0x02)),
        Row("DSCP inherited, CE becomes ECT(0)", Policies.site, inner(trafficClass: 0xFF), send("10.100.200.2", tos: 0xFE)),
        Row(
            "DSCP fixed, Not-ECT", Policies.site.with(tos: .fixed(0x28)), inner(trafficClass: 0xB8),
            send("10.100.200.2", tos: 0x28)),
        Row(
            "DSCP fixed, its ECN bits ignored", Policies.site.with(tos: .fixed(0x2B)), inner(trafficClass: 0xB8),
            send("10.100.200.2", tos: 0x28)),
        Row(
            "DSCP fixed, ECT(1)", Policies.site.with(tos: .fixed(0x2B)), inner(trafficClass: 0xB9),
            send("10.100.200.2", tos: 0x29)),
        Row(
            "DSCP fixed, CE becomes ECT(0)", Policies.site.with(tos: .fixed(0x28)), inner(trafficClass: 0xBB),
            send("10.100.200.2", tos: 0x2A)),
        Row("DSCP fixed at 0", Policies.remote.with(tos: .fixed(0)), inner(trafficClass: 0xB9), send("198.51.100.7", tos: 0x01)),
    ]

    // MARK: What does not

    static let structure = [
        Row("nothing", Policies.site, [], .drop(.uplinkShort)),
        Row("one byte", Policies.site, [0x60], .drop(.uplinkShort)),
        Row("39 bytes", Policies.site, Array(inner()[..<39]), .drop(.uplinkShort)),
        Row("39 bytes, remote", Policies.remote, Array(inner()[..<39]), .drop(.uplinkShort)),
        Row("version 4", Policies.site, [0x45] + inner()[1...], .drop(.uplinkNotIPv6)),
        Row("version 0", Policies.site, [0x00] + inner()[1...], .drop(.uplinkNotIPv6)),
        Row("version 7, remote", Policies.remote, [0x70] + inner()[1...], .drop(.uplinkNotIPv6)),
        Row("one byte missing", Policies.site, inner().dropLast(), .drop(.uplinkTruncated)),
        Row(
            "all but the header missing", Policies.remote, Packets.inner(us, peer, payload: [], payloadLength: 65535),
            .drop(.uplinkTruncated)),
        Row(
            "one byte too long for IPv4", Policies.site, inner(payload: Array(repeating: 0, count: 65476)),
            .drop(.uplinkOversized)),
        Row(
            "the longest of IPv6, remote", Policies.remote, inner(payload: Array(repeating: 0, count: 65535)),
            .drop(.uplinkOversized)),
    ]

    // 41 and 4 behind whatever may stand before them (CVE-2025-23019).
    static let tunnels: [(String, UInt8, [UInt8])] = [
        ("6in6", 41, []), ("4in6", 4, []),
        ("hop-by-hop, 6in6", 0, Packets.extensionHeader(next: 41)), ("hop-by-hop, 4in6", 0, Packets.extensionHeader(next: 4)),
        ("destination options, 6in6", 60, Packets.extensionHeader(next: 41)),
        ("routing, 4in6", 43, [4, 0, 0, 0, 0, 0, 0, 0]), ("routing with a segment left, 6in6", 43, [41, 0, 0, 1, 0, 0, 0, 0]),
        ("authentication, 6in6", 51, [41, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
        ("mobility, 6in6", 135, [41, 0, 0, 0, 0, 0, 0, 0]),
        ("first fragment, 6in6", 44, Packets.fragmentHeader(next: 41, more: true)),
        ("atomic fragment, 4in6", 44, Packets.fragmentHeader(next: 4, more: false)),
        ("later fragment of 6in6", 44, Packets.fragmentHeader(next: 41, offset: 100, more: true)),
        ("hop-by-hop, destination options, 6in6", 0, Packets.extensionHeader(next: 60) + Packets.extensionHeader(next: 41)),
        // The fragment's own extension headers are read by the destination as they stand (RFC 8200 section 4.5).
        (
            "first fragment, destination options, 6in6", 44,
            Packets.fragmentHeader(next: 60, more: true) + Packets.extensionHeader(next: 41)
        ),
        (
            "atomic fragment, destination options, 4in6", 44,
            Packets.fragmentHeader(next: 60, more: false) + Packets.extensionHeader(next: 4)
        ),
        (
            "8 destination options, 6in6", 60,
            (0..<7).flatMap { _ in Packets.extensionHeader(next: 60) } + Packets.extensionHeader(next: 41)
        ),
        // A host takes as many as there are: so must the check, or refuse the packet for it.
        (
            "9 destination options, 6in6", 60,
            (0..<8).flatMap { _ in Packets.extensionHeader(next: 60) } + Packets.extensionHeader(next: 41)
        ),
        (
            "40 destination options, 4in6", 60,
            (0..<39).flatMap { _ in Packets.extensionHeader(next: 60) } + Packets.extensionHeader(next: 4)
        ),
    ]

    static let nested = [("site", Policies.site), ("remote", Policies.remote)].flatMap { mode, policy in
        tunnels.map { name, next, headers in
            Row("\(mode): \(name)", policy, inner(next: next, payload: headers + inner()), .drop(.uplinkNestedTunnel))
        }
    }

    static let destinations = [
        Row("all nodes", Policies.site, inner(to: "ff02::1"), .drop(.uplinkMulticastDestination)),
        Row("global multicast, with a relay", Policies.relayed, inner(to: "ff0e::1"), .drop(.uplinkMulticastDestination)),
        Row(
            "multicast, border relay", Policies.borderRelay, inner(to: "ff05::2", from: elsewhere),
            .drop(.uplinkMulticastDestination)),
        Row("link-local", Policies.site, inner(to: "fe80::1"), .drop(.uplinkLinkLocalDestination)),
        Row(
            "the last link-local address, with a relay", Policies.relayed, inner(to: "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            .drop(.uplinkLinkLocalDestination)),
        Row("our own address", Policies.site, inner(to: us), .drop(.uplinkLocalDestination)),
        Row("our own prefix", Policies.site, inner(to: "2001:db8:6464:1ff::9"), .drop(.uplinkLocalDestination)),
        Row(
            "our own prefix, 6to4", Policies.sixToFour, inner(to: "2002:c000:201:ffff::1", from: us6to4),
            .drop(.uplinkLocalDestination)),
        Row("a local prefix", Policies.routed, inner(to: "fd00:1::1"), .drop(.uplinkLocalDestination)),
        Row("outside, no relay", Policies.site, inner(to: elsewhere), .drop(.uplinkNoRoute)),
        Row("outside, 6to4", Policies.sixToFour, inner(to: elsewhere, from: us6to4), .drop(.uplinkNoRoute)),
        Row(
            "outside every route, border relay", Policies.routedBorderRelay, inner(to: "3fff:b::1", from: elsewhere),
            .drop(.uplinkNoRoute)),
        Row("loopback", Policies.site, inner(to: "::1"), .drop(.uplinkNoRoute)),
        Row("IPv4-mapped", Policies.site, inner(to: "::ffff:10.100.200.2"), .drop(.uplinkNoRoute)),
        Row("site broadcast", Policies.site, inner(to: "2001:db8:ffff:ff00::1"), .drop(.uplinkMartianDestination)),
        Row("6to4 broadcast", Policies.sixToFour, inner(to: "2002:c000:2ff::1", from: us6to4), .drop(.uplinkMartianDestination)),
    ]

    static let martians = [
        ("0.0.0.0", "2002::1"), ("0.255.255.255", "2002:ff:ffff::1"), ("127.0.0.1", "2002:7f00:1::1"),
        ("127.255.255.255", "2002:7fff:ffff::1"), ("224.0.0.1", "2002:e000:1::1"), ("239.255.255.255", "2002:efff:ffff::1"),
        ("240.0.0.1", "2002:f000:1::1"), ("255.255.255.255", "2002:ffff:ffff::1"),
    ].map { Row("embedded \($0.0)", Policies.sixToFour, inner(to: $0.1, from: us6to4), .drop(.uplinkMartianDestination)) }

    static let privates = [
        ("10.0.0.1", "2002:a00:1::1"), ("10.255.255.255", "2002:aff:ffff::1"), ("172.16.0.1", "2002:ac10:1::1"),
        ("172.31.255.255", "2002:ac1f:ffff::1"), ("192.168.0.1", "2002:c0a8:1::1"),
    ].map {
        Row(
            "6to4 of \($0.0) from a public host", Policies.sixToFour, inner(to: $0.1, from: us6to4),
            .drop(.uplinkPrivateDestination))
    }

    static let hopLimits = [
        Row("no hop limit to inherit", Policies.site.with(ttl: .inherit), inner(hopLimit: 0), .drop(.uplinkHopLimitZero)),
        Row(
            "no hop limit to inherit, relay", Policies.oneRelay.with(ttl: .inherit), inner(to: elsewhere, hopLimit: 0),
            .drop(.uplinkHopLimitZero)),
        Row(
            "no hop limit to inherit, remote", Policies.remote.with(ttl: .inherit), inner(hopLimit: 0), .drop(.uplinkHopLimitZero)
        ),
    ]

    // Where two rules refuse a packet, the first of the list of reasons gives its name.
    static let order: [Row] = [
        Row("short before not-ipv6", Policies.site, [0x45] + inner()[1..<39], .drop(.uplinkShort)),
        Row(
            "not-ipv6 before truncated", Policies.site, Packets.inner(us, peer, version: 4, payloadLength: 9),
            .drop(.uplinkNotIPv6)),
        Row(
            "truncated before nested-tunnel", Policies.site, Packets.inner(us, peer, next: 41, payloadLength: 9),
            .drop(.uplinkTruncated)),
        Row("nested-tunnel before multicast", Policies.site, inner(to: "ff02::1", next: 41), .drop(.uplinkNestedTunnel)),
        Row("nested-tunnel before foreign-source", Policies.site, inner(from: elsewhere, next: 4), .drop(.uplinkNestedTunnel)),
        Row(
            "multicast before foreign-source", Policies.site, inner(to: "ff02::16", from: "fe80::1"),
            .drop(.uplinkMulticastDestination)),
        Row(
            "link-local before foreign-source", Policies.site, inner(to: "fe80::2", from: "fe80::1"),
            .drop(.uplinkLinkLocalDestination)),
        Row(
            "foreign-source before local-destination", Policies.site, inner(to: us, from: elsewhere), .drop(.uplinkForeignSource)),
        Row("foreign-source before no-route", Policies.site, inner(to: elsewhere, from: elsewhere), .drop(.uplinkForeignSource)),
        Row(
            "foreign-source before martian", Policies.sixToFour, inner(to: "2002:7f00:1::1", from: elsewhere),
            .drop(.uplinkForeignSource)),
        Row(
            "foreign-source before private", Policies.sixToFour, inner(to: "2002:a00:1::1", from: elsewhere),
            .drop(.uplinkForeignSource)),
        Row(
            "foreign-source before hop-limit-zero", Policies.site.with(ttl: .inherit), inner(from: elsewhere, hopLimit: 0),
            .drop(.uplinkForeignSource)),
        Row(
            "local-destination before hop-limit-zero", Policies.site.with(ttl: .inherit), inner(to: us, hopLimit: 0),
            .drop(.uplinkLocalDestination)),
        Row(
            "no-route before hop-limit-zero", Policies.site.with(ttl: .inherit), inner(to: elsewhere, hopLimit: 0),
            .drop(.uplinkNoRoute)),
        Row(
            "martian before hop-limit-zero", Policies.sixToFour.with(ttl: .inherit),
            inner(to: "2002:7f00:1::1", from: us6to4, hopLimit: 0), .drop(.uplinkMartianDestination)),
        Row(
            "private before hop-limit-zero", Policies.sixToFour.with(ttl: .inherit),
            inner(to: "2002:a00:1::1", from: us6to4, hopLimit: 0), .drop(.uplinkPrivateDestination)),
    ]

    @Test(arguments: passing + otherPayloads)
    func passes(row: Row) { check(row) }

    @Test(arguments: outerFields)
    func fillsTheOuterHeader(row: Row) { check(row) }

    @Test(arguments: structure)
    func refusesWhatIsNoIPv6Packet(row: Row) { check(row) }

    @Test(arguments: nested)
    func refusesTunnelsInTheTunnel(row: Row) { check(row) }

    @Test(arguments: destinations + martians + privates)
    func refusesDestinations(row: Row) { check(row) }

    @Test(arguments: hopLimits)
    func refusesAHopLimitOfZero(row: Row) { check(row) }

    @Test(arguments: order)
    func theFirstReasonCounts(row: Row) { check(row) }

    private func check(_ row: Row) {
        let verdict = row.policy.encapsulate(row.packet.raw)
        #expect(verdict == row.verdict)
    }

    // RFC 4291 sections 2.5.2, 2.5.3: never outside a node, so not to a relay either. The same for what only looks like IPv6.
    @Test(arguments: ["::", "::1", "::192.0.2.1", "::ffff:192.0.2.1"])
    func reservedDestinationsDoNotGoToARelay(destination: String) {
        let packet = Self.inner(to: destination)
        let verdict = Policies.relayed.encapsulate(packet.raw)
        if case .send = verdict { Issue.record("\(verdict)") }
    }

    // With two relays both are used, and all packets of a flow go to one.
    @Test func relaysShareTheFlows() {
        var counts: [IPv4Address: Int] = [:]
        for port in 0..<1000 as Range<UInt16> {
            let first = Self.inner(to: Self.elsewhere, next: 17, payload: Packets.bytes(1024 + port) + hex("0035000800000000"))
            let second = Self.inner(
                to: Self.elsewhere, next: 17, payload: Packets.bytes(1024 + port) + hex("0035001012341122334455667788"),
                trafficClass: 2,
                hopLimit: 3)
            guard case .send(let outer, _) = Policies.relayed.encapsulate(first.raw),
                case .send(let other, _) = Policies.relayed.encapsulate(second.raw)
            else {
                Issue.record("port \(port) dropped")
                return
            }
            if other.destination != outer.destination { Issue.record("port \(port): two relays for one flow") }
            counts[outer.destination, default: 0] += 1
        }
        #expect(Set(counts.keys) == [v4("10.0.0.1"), v4("192.0.2.33")])
        // 500 each, give or take six times the 16 of chance.
        #expect(counts.values.allSatisfy { (400...600).contains($0) })
    }

    // MARK: Batches

    @Test func batchSortsItsPackets() {
        let plain = [UInt8](repeating: 0, count: 10)
        // Virtio header and packet; the reason, or nil and the destination.
        let reads: [(bytes: [UInt8], verdict: UplinkVerdict)] = [
            (plain + Self.inner(), Self.send("10.100.200.2")),
            (plain + Self.inner(to: "ff02::1"), .drop(.uplinkMulticastDestination)),
            (plain + Self.inner(payload: [], trafficClass: 0xBB), Self.send("10.100.200.2", 40, tos: 0xBA)),
            ([], .drop(.uplinkShort)),
            (Array(plain[..<9]), .drop(.uplinkShort)),
            (plain, .drop(.uplinkShort)),
            (plain + Self.inner()[..<39], .drop(.uplinkShort)),
            (hex("01040000000000000000") + Self.inner(), .drop(.uplinkOffload)),
            (hex("00010000000000000000") + Self.inner(), .drop(.uplinkOffload)),
            (plain + Self.inner(to: Self.elsewhere), .drop(.uplinkNoRoute)),
            (plain + Self.inner() + [1, 2, 3, 4, 5], Self.send("10.100.200.2")),
            (plain + Self.inner(to: "ff02::2"), .drop(.uplinkMulticastDestination)),
            (plain + Self.inner(to: "2001:db8:0:100::1", payload: [1]), Self.send("10.0.0.1", 41)),
        ]
        var memory: [UInt8] = []
        var batch = FixedList<Slice>(capacity: reads.count)
        for (index, read) in reads.enumerated() {
            memory += [UInt8](repeating: 0xA5, count: index * 7 + 3)
            batch.append(Slice(offset: memory.count, length: read.bytes.count))
            memory += read.bytes
        }
        memory += [0xA5, 0xA5, 0xA5]
        var frames = FrameBatch(frames: reads.count, slices: 2 * reads.count, packets: reads.count, scratch: 0..<0)
        var counters = Counters()
        var next = 0
        memory.withMutableRaw {
            Policies.site.encapsulate(batch, from: &next, in: &$0, into: &frames, counters: &counters)
        }
        #expect(next == reads.count)

        var (sent, dropped) = (0, 0)
        var expected: [DropReason: UInt64] = [:]
        for (index, read) in reads.enumerated() {
            let slice = batch[index]
            switch read.verdict {
            case .send(let outer, let innerLength):
                guard sent < frames.frames.count else {
                    Issue.record("only \(sent) frames")
                    return
                }
                let frame = frames.frames[sent]
                #expect(frame.outer == outer)
                #expect(frame.sliceCount == 1)
                #expect(frame.innerLength == UInt32(innerLength))
                let payload = frames.slices[Int(frame.firstSlice)]
                #expect(payload == Slice(offset: Int(slice.offset) + 10, length: innerLength))
                #expect(Array(memory[payload.range]) == Array(read.bytes[10..<10 + innerLength]))
                sent += 1
            case .drop(let reason):
                guard dropped < frames.dropped.count else {
                    Issue.record("only \(dropped) dropped")
                    return
                }
                let forgotten = frames.dropped[dropped]
                #expect(forgotten == slice)
                expected[reason, default: 0] += 1
                dropped += 1
            }
        }
        let (frameCount, sliceCount, dropCount) = (frames.frames.count, frames.slices.count, frames.dropped.count)
        #expect(frameCount == sent && sliceCount == sent && dropCount == dropped)
        for reason in DropReason.allCases { #expect(counters[reason] == expected[reason, default: 0], "\(reason.name)") }
        // Handed on is what was sent, which this stage cannot know.
        #expect(counters.uplinkPackets == 0 && counters.uplinkBytes == 0)
    }

    @Test func batchesAddUp() {
        var packet = [UInt8](repeating: 0, count: 10) + Self.inner()
        var batch = FixedList<Slice>(capacity: 1)
        batch.append(Slice(offset: 0, length: packet.count))
        var frames = FrameBatch(frames: 2, slices: 4, packets: 1, scratch: 0..<0)
        var counters = Counters()
        for _ in 0..<2 {
            var next = 0
            packet.withMutableRaw {
                Policies.site.encapsulate(batch, from: &next, in: &$0, into: &frames, counters: &counters)
            }
        }
        let (count, first, second) = (frames.frames.count, frames.frames[0], frames.frames[1])
        #expect(count == 2)
        #expect(first.firstSlice == 0 && second.firstSlice == 1)
    }

    // MARK: Totality

    /// A verdict that contradicts the packet.
    private static func isAbsurd(_ verdict: UplinkVerdict, _ packet: [UInt8]) -> Bool {
        guard case .send(let outer, let innerLength) = verdict else { return false }
        return packet.count < 40 || packet[0] >> 4 != 6 || innerLength != 40 + Int(packet[4]) * 256 + Int(packet[5])
            || innerLength > packet.count || outer.destination == .any
    }

    @Test func garbageOfEveryLength() {
        var random = SeededGenerator(seed: 11)
        for length in 0...120 {
            for round in 0..<12 {
                var packet = random.bytes(length)
                if round % 2 == 1 && length > 7 {
                    packet[0] = 0x60
                    (packet[4], packet[5]) = (0, UInt8(max(length - 40, 0)))
                    packet[6] = [0, 43, 44, 51, 60, 17].randomElement(using: &random)!
                }
                for policy in Policies.all {
                    let verdict = policy.encapsulate(packet.raw)
                    if Self.isAbsurd(verdict, packet) { Issue.record("\(verdict) for \(packet)") }
                }
            }
        }
    }

    @Test func mutatedPackets() {
        var random = SeededGenerator(seed: 12)
        let good = (Self.passing + Self.otherPayloads + Self.nested).filter { $0.packet.count < 400 }
        var outcomes: Set<UplinkVerdict> = []
        for _ in 0..<3000 {
            let row = good.randomElement(using: &random)!
            let packet = row.packet.mutated(&random)
            let verdict = row.policy.encapsulate(packet.raw)
            if Self.isAbsurd(verdict, packet) { Issue.record("\(verdict) for \(packet)") }
            outcomes.insert(verdict)
        }
        #expect(outcomes.count > 20)  // the mutations reach something
    }

    @Test func everyPacketOfARandomBatchHasOneOutcome() {
        var random = SeededGenerator(seed: 13)
        for _ in 0..<50 {
            var memory: [UInt8] = []
            var batch = FixedList<Slice>(capacity: 32)
            for _ in 0..<Int.random(in: 0...32, using: &random) {
                let bytes = [UInt8](repeating: 0, count: 10) + Self.passing[0].packet
                let read = bytes.mutated(&random)
                batch.append(Slice(offset: memory.count, length: read.count))
                memory += read
            }
            var frames = FrameBatch(frames: 32, slices: 64, packets: 32, scratch: 0..<0)
            var counters = Counters()
            var next = 0
            memory.withMutableRaw {
                Policies.site.encapsulate(batch, from: &next, in: &$0, into: &frames, counters: &counters)
            }
            let (total, sent, dropped) = (batch.count, frames.frames.count, frames.dropped.count)
            #expect(sent + dropped == total)
            #expect(DropReason.allCases.reduce(0) { $0 + counters[$1] } == UInt64(dropped))
        }
    }
}
