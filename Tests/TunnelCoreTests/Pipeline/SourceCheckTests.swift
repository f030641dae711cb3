import Testing
import TunnelCore

/// Who may use which inner address (RFC 5969 section 9.2, RFC 3964 section 5), both ways.
@Suite struct SourceCheckTests {
    struct Row: CustomTestStringConvertible {
        let name: String
        let policy: TunnelPolicy
        let outerSource: String
        let source: String
        let destination: String
        /// nil: it is delivered.
        let reason: DropReason?
        var testDescription: String { "\(name): \(source) via \(outerSource) to \(destination)" }

        init(
            _ name: String, _ policy: TunnelPolicy, via outerSource: String, _ source: String, to destination: String = us,
            _ reason: DropReason? = nil
        ) {
            (self.name, self.policy, self.outerSource) = (name, policy, outerSource)
            (self.source, self.destination, self.reason) = (source, destination, reason)
        }
    }

    static let (us, peer) = ("2001:db8:6464:100::1", "2001:db8:64c8:200::2")
    /// The address of the border relay, where it is us.
    static let relay = "2001:db8:0:100::1"
    static let elsewhere = "3fff:eee::1"

    static let accepted = [
        Row("embedded", Policies.site, via: "10.100.200.2", peer),
        Row("the last of its prefix", Policies.site, via: "10.100.200.2", "2001:db8:64c8:2ff:ffff:ffff:ffff:ffff"),
        Row("to the last of our prefix", Policies.site, via: "10.100.200.2", peer, to: "2001:db8:6464:1ff:ffff:ffff:ffff:ffff"),
        Row("to a local prefix", Policies.routed, via: "10.100.200.2", peer, to: "fd00:1::1"),
        Row("outside, by the relay of the domain", Policies.relayed, via: "10.0.0.1", elsewhere),
        Row("outside, by the relay outside R/m", Policies.relayed, via: "192.0.2.33", elsewhere),
        Row("6to4 is outside another domain", Policies.relayed, via: "10.0.0.1", "2002:c633:6407::1"),
        Row("the relay's own address", Policies.relayed, via: "10.0.0.1", relay),
        Row("a route outside, by its endpoint", Policies.routed, via: "192.0.2.9", "3fff:a::1"),
        Row("a route outside, by the relay", Policies.routed, via: "192.0.2.33", "3fff:a::1"),
        Row("a route inside the domain, by its endpoint", Policies.routed, via: "10.1.1.1", "2001:db8:64c8:280::1"),
        Row("an endpoint's own address", Policies.routed, via: "10.1.1.1", "2001:db8:101:100::1"),
        Row("what is left of the peer's prefix", Policies.routed, via: "10.100.200.2", peer),
        Row("border relay, to itself", Policies.borderRelay, via: "10.100.200.2", peer, to: relay),
        Row("border relay, outwards", Policies.borderRelay, via: "10.100.200.2", peer, to: elsewhere),
        Row("border relay, to a route outside", Policies.routedBorderRelay, via: "10.100.200.2", peer, to: "3fff:a::1"),
        Row("border relay, to a local prefix", Policies.routedBorderRelay, via: "10.100.200.2", peer, to: "fd00:1::1"),
        Row("6to4 of private hosts", Policies.privateSixToFour, via: "10.0.0.2", "2002:a00:2::1", to: "2002:a00:1::1"),
        Row(
            "outside, by a private relay of a public host", Policies.privatelyRelayed, via: "10.0.0.9", elsewhere,
            to: "2002:c000:201::1"),
        Row("fec0::/10 is not link-local", Policies.oneRelay, via: "192.0.2.33", "fec0::1"),
    ]

    static let sources: [Row] =
        // No host's address, whoever sends it.
        ["::", "::1", "ff02::1", "ff0e::1", "::10.100.200.2", "::255.255.255.255", "::ffff:10.100.200.2", "fe80::1", "febf::1"]
        .flatMap {
            [
                Row("invalid", Policies.site, via: "10.100.200.2", $0, .downlinkInnerSourceInvalid),
                Row("invalid, by a relay", Policies.relayed, via: "10.0.0.1", $0, .downlinkInnerSourceInvalid),
                Row(
                    "invalid, border relay", Policies.borderRelay, via: "10.100.200.2", $0, to: relay, .downlinkInnerSourceInvalid
                ),
            ]
        } + [
            Row("another's address", Policies.site, via: "10.9.9.9", peer, .downlinkInnerSourceSpoofed),
            Row("the host next to it", Policies.site, via: "10.100.200.3", peer, .downlinkInnerSourceSpoofed),
            Row("our own address", Policies.site, via: "10.100.200.2", "2001:db8:6464:100::7", .downlinkInnerSourceSpoofed),
            Row("another's address, by a relay", Policies.relayed, via: "192.0.2.33", peer, .downlinkInnerSourceSpoofed),
            Row("another's address, by an endpoint", Policies.routed, via: "10.1.1.1", peer, .downlinkInnerSourceSpoofed),
            Row("our own address, by a relay", Policies.relayed, via: "10.0.0.1", us, .downlinkInnerSourceSpoofed),
            Row(
                "another's address, border relay", Policies.borderRelay, via: "10.9.9.9", peer, to: elsewhere,
                .downlinkInnerSourceSpoofed),
            Row(
                "6to4", Policies.sixToFour, via: "198.51.100.8", "2002:c633:6407::1", to: "2002:c000:201::1",
                .downlinkInnerSourceSpoofed),
            // Whoever is no host of the domain from here: a private one, seen from a public one (RFC 3964 section 5.3.1).
            Row(
                "6to4 of a private host", Policies.sixToFour, via: "10.0.0.2", "2002:a00:2::1", to: "2002:c000:201::1",
                .downlinkOuterSourceUnknown),
            Row(
                "6to4 of a link-local host", Policies.sixToFour, via: "169.254.0.2", "2002:a9fe:2::1", to: "2002:c000:201::1",
                .downlinkOuterSourceUnknown),
            // Inside the domain, and the sender is neither embedded nor the route's endpoint.
            Row(
                "a route inside the domain, by another", Policies.routed, via: "10.9.9.9", "2001:db8:64c8:280::1",
                .downlinkInnerSourceUnauthorized),
            Row(
                "a route inside the domain, by a relay", Policies.routed, via: "192.0.2.33", "2001:db8:64c8:280::1",
                .downlinkInnerSourceUnauthorized),

            Row("outside, no relays", Policies.site, via: "10.100.200.2", elsewhere, .downlinkInnerSourceUnauthorized),
            Row("outside, by another", Policies.relayed, via: "10.100.200.2", elsewhere, .downlinkInnerSourceUnauthorized),
            Row("outside, by an endpoint", Policies.routed, via: "192.0.2.9", "3fff:b::1", .downlinkInnerSourceUnauthorized),
            Row(
                "a route outside, by another", Policies.routed, via: "10.100.200.2", "3fff:a::1", .downlinkInnerSourceUnauthorized
            ),
            Row(
                "a route outside, by another endpoint", Policies.routed, via: "10.1.1.1", "3fff:a::1",
                .downlinkInnerSourceUnauthorized),
            Row(
                "our local prefix outside the domain", Policies.routed, via: "10.100.200.2", "fd00:1::1",
                .downlinkInnerSourceSpoofed),
            // It lets its own side out, not others in.
            Row(
                "border relay, outside by a member", Policies.borderRelay, via: "10.100.200.2", elsewhere, to: relay,
                .downlinkInnerSourceUnauthorized),
        ]

    static let destinations: [Row] =
        ["ff02::1", "ff05::2", "ff0e::1", "fe80::1", "febf:ffff::1"].flatMap {
            [
                Row("invalid", Policies.site, via: "10.100.200.2", peer, to: $0, .downlinkInnerDestinationInvalid),
                Row(
                    "invalid, border relay", Policies.borderRelay, via: "10.100.200.2", peer, to: $0,
                    .downlinkInnerDestinationInvalid),
                Row(
                    "invalid, from a relay", Policies.relayed, via: "192.0.2.33", elsewhere, to: $0,
                    .downlinkInnerDestinationInvalid),
            ]
        } + [
            Row(
                "another host's", Policies.site, via: "10.100.200.2", peer, to: "2001:db8:6464:200::1",
                .downlinkInnerDestinationForeign),
            Row(
                "the sender's own", Policies.site, via: "10.100.200.2", peer, to: "2001:db8:64c8:200::3",
                .downlinkInnerDestinationForeign),
            Row("outside", Policies.site, via: "10.100.200.2", peer, to: elsewhere, .downlinkInnerDestinationForeign),
            Row(
                "outside, from a relay", Policies.relayed, via: "192.0.2.33", elsewhere, to: elsewhere,
                .downlinkInnerDestinationForeign),
            Row(
                "another host's, from a relay", Policies.relayed, via: "192.0.2.33", elsewhere, to: peer,
                .downlinkInnerDestinationForeign),
            Row(
                "a route inside", Policies.routed, via: "10.100.200.2", peer, to: "2001:db8:64c8:280::1",
                .downlinkInnerDestinationForeign),
            Row("a route outside", Policies.routed, via: "10.100.200.2", peer, to: "3fff:a::1", .downlinkInnerDestinationForeign),
            Row(
                "loopback is in none of our prefixes", Policies.site, via: "10.100.200.2", peer, to: "::1",
                .downlinkInnerDestinationInvalid),
            Row(
                "border relay, back into the domain", Policies.borderRelay, via: "10.100.200.2", peer, to: "2001:db8:909:900::1",
                .downlinkInnerDestinationForeign),
            // Inside the domain, too: a border relay takes what is outside of it.
            Row(
                "border relay, to a route inside the domain", Policies.routedBorderRelay, via: "10.9.9.9", "2001:db8:909:900::1",
                to: "2001:db8:64c8:280::1", .downlinkInnerDestinationForeign),
        ]

    @Test(arguments: accepted)
    func accepts(row: Row) { check(row) }

    @Test(arguments: sources)
    func refusesSources(row: Row) { check(row) }

    @Test(arguments: destinations)
    func refusesDestinations(row: Row) { check(row) }

    private static func verdict(_ row: Row) -> DownlinkVerdict {
        let packet = Packets.outer(
            row.outerSource, row.policy.local.description, Packets.inner(row.source, row.destination))
        return row.policy.decapsulate(packet.raw)
    }

    private func check(_ row: Row) {
        let verdict = Self.verdict(row)
        #expect(verdict == (row.reason.map { .drop($0) } ?? DecapsulateTests.deliver()))
    }

    // Whatever the reason is called: nobody else speaks with our addresses or an endpoint's, and ::1 stays in its node.
    @Test(arguments: [
        Row("our local prefix, by a relay", Policies.routed, via: "192.0.2.33", "fd00:1::1"),
        Row("our local prefix, by an endpoint", Policies.routed, via: "192.0.2.9", "fd00:1::1"),
        Row("a route inside the domain, by a relay", Policies.routed, via: "192.0.2.33", "2001:db8:64c8:280::1"),
        Row("a route inside the domain, by another member", Policies.routed, via: "10.9.9.9", "2001:db8:64c8:280::1"),
        Row("loopback by a border relay", Policies.borderRelay, via: "10.100.200.2", peer, to: "::1"),
        Row("IPv4-mapped by a border relay", Policies.borderRelay, via: "10.100.200.2", peer, to: "::ffff:10.0.0.1"),
    ])
    func neverDelivered(row: Row) {
        let verdict = Self.verdict(row)
        if case .deliver = verdict { Issue.record("\(verdict)") }
    }

    // MARK: Uplink

    struct Uplink: CustomTestStringConvertible {
        let name: String
        let policy: TunnelPolicy
        let source: String
        let isAccepted: Bool
        var testDescription: String { "\(name): \(source)" }

        init(_ name: String, _ policy: TunnelPolicy, _ source: String, _ isAccepted: Bool) {
            (self.name, self.policy, self.source, self.isAccepted) = (name, policy, source, isAccepted)
        }
    }

    static let uplink: [Uplink] = [
        Uplink("our prefix", Policies.site, us, true),
        Uplink("its first address", Policies.site, "2001:db8:6464:100::", true),
        Uplink("its last address", Policies.site, "2001:db8:6464:1ff:ffff:ffff:ffff:ffff", true),
        Uplink("a local prefix", Policies.routed, "fd00:1:0:ffff::1", true),
        Uplink("border relay: its own", Policies.borderRelay, relay, true),
        Uplink("border relay: outside", Policies.borderRelay, elsewhere, true),
        Uplink("border relay: 6to4", Policies.borderRelay, "2002:c633:6407::1", true),
        Uplink("border relay: a route outside", Policies.routedBorderRelay, "3fff:a::1", true),
        Uplink("border relay: a local prefix", Policies.routedBorderRelay, "fd00:1::1", true),

        Uplink("before our prefix", Policies.site, "2001:db8:6464:ff:ffff:ffff:ffff:ffff", false),
        Uplink("behind our prefix", Policies.site, "2001:db8:6464:200::", false),
        Uplink("outside", Policies.site, elsewhere, false),
        Uplink("outside, with a relay", Policies.relayed, elsewhere, false),
        Uplink("a route outside", Policies.routed, "3fff:a::1", false),
        Uplink("a route inside", Policies.routed, "2001:db8:64c8:280::1", false),
        Uplink("link-local", Policies.site, "fe80::1", false),
        Uplink("unspecified", Policies.site, "::", false),
        Uplink("loopback", Policies.site, "::1", false),
        Uplink("multicast", Policies.site, "ff02::1", false),
        Uplink("IPv4-mapped", Policies.site, "::ffff:10.100.100.1", false),
        Uplink("the next local prefix", Policies.routed, "fd00:1:1::1", false),
        Uplink("border relay: another host's", Policies.borderRelay, "2001:db8:6464:100::1", false),
        // Inside the domain, and not ours.
        Uplink("border relay: a route inside the domain", Policies.routedBorderRelay, "2001:db8:64c8:280::1", false),
        // RFC 4291 sections 2.5.2, 2.5.3, 2.5.6, 2.7: no router forwards these.
        Uplink("border relay: link-local", Policies.borderRelay, "fe80::1", false),
        Uplink("border relay: unspecified", Policies.borderRelay, "::", false),
        Uplink("border relay: loopback", Policies.borderRelay, "::1", false),
        Uplink("border relay: multicast", Policies.borderRelay, "ff02::1", false),
    ]

    @Test(arguments: uplink)
    func uplinkSources(row: Uplink) {
        let packet = Packets.inner(row.source, "2001:db8:909:900::1")
        let verdict = row.policy.encapsulate(packet.raw)
        #expect(verdict == (row.isAccepted ? EncapsulateTests.send("10.9.9.9") : .drop(.uplinkForeignSource)))
    }
}
