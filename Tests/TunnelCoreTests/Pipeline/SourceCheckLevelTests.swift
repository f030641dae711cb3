import Testing
import TunnelCore

/// What `--source-check sit` and `off` take besides what strict does.
@Suite struct SourceCheckLevelTests {
    static let (us, peer, other) = ("2001:db8:6464:100::1", "2001:db8:64c8:200::2", "2001:db8:909:900::1")
    static let elsewhere = "3fff:eee::1"
    /// `--address` in the domain, but of another host: what a NAT in front of us made of our prefix.
    static let translated = Policies.make("10.100.100.1", Policies.siteDomain, localPrefixes: ["2001:db8:a0a:a00::/56"])

    struct Downlink: CustomTestStringConvertible {
        let name: String
        let policy: TunnelPolicy
        let packet: [UInt8]
        /// nil: it is delivered.
        let strict: DropReason?, sit: DropReason?
        var testDescription: String { name }

        init(
            _ name: String, _ policy: TunnelPolicy = Policies.site, via outerSource: String = "10.100.200.2",
            from source: String = peer, to destination: String = us, next: UInt8 = 59, strict: DropReason?, sit: DropReason? = nil
        ) {
            packet = Packets.outer(
                outerSource, policy.local.description, Packets.inner(source, destination, next: next, payload: Array(0..<40)))
            (self.name, self.policy, self.strict, self.sit) = (name, policy, strict, sit)
        }
    }

    static let downlink: [Downlink] = [
        Downlink("from the embedded host", strict: nil),
        // packet_is_spoofed
        Downlink(
            "from another than the embedded host", via: "10.9.9.9", strict: .downlinkInnerSourceSpoofed,
            sit: .downlinkInnerSourceSpoofed),
        Downlink(
            "the same by a relay", Policies.relayed, via: "10.0.0.1", strict: .downlinkInnerSourceSpoofed,
            sit: .downlinkInnerSourceSpoofed),
        Downlink(
            "our own source by another", from: us, strict: .downlinkInnerSourceSpoofed, sit: .downlinkInnerSourceSpoofed),
        Downlink(
            "to another host of the domain", to: other, strict: .downlinkInnerDestinationForeign,
            sit: .downlinkInnerDestinationForeign),
        Downlink(
            "to another host of the domain, from outside", from: elsewhere, to: other, strict: .downlinkInnerSourceUnauthorized,
            sit: .downlinkInnerDestinationForeign),
        Downlink("to a prefix of ours that embeds another host", translated, to: "2001:db8:a0a:aff::1", strict: nil),
        Downlink(
            "beside it", translated, to: "2001:db8:a0a:b00::1", strict: .downlinkInnerDestinationForeign,
            sit: .downlinkInnerDestinationForeign),
        // Outside the domain: anybody's.
        Downlink("from outside", from: elsewhere, strict: .downlinkInnerSourceUnauthorized),
        Downlink("to outside", to: elsewhere, strict: .downlinkInnerDestinationForeign),
        Downlink("from outside to outside", from: elsewhere, to: "3fff:aaa::1", strict: .downlinkInnerSourceUnauthorized),
        Downlink("6to4 in another domain", from: "2002:7f00:1::1", strict: .downlinkInnerSourceUnauthorized),
        Downlink("from ::1", from: "::1", strict: .downlinkInnerSourceInvalid),
        Downlink("from ::", from: "::", strict: .downlinkInnerSourceInvalid),
        Downlink("IPv4-compatible, of another host", from: "::10.9.9.9", strict: .downlinkInnerSourceInvalid),
        Downlink("IPv4-mapped", from: "::ffff:10.9.9.9", strict: .downlinkInnerSourceInvalid),
        Downlink("from a group", from: "ff02::1", strict: .downlinkInnerSourceInvalid),
        Downlink("link-local", from: "fe80::1", to: "fe80::2", strict: .downlinkInnerSourceInvalid),
        Downlink("to a group", to: "ff02::1", strict: .downlinkInnerDestinationInvalid),
        // The outer source alone.
        Downlink("outside R/m", via: "192.0.2.7", from: elsewhere, strict: .downlinkOuterSourceUnknown),
        Downlink(
            "outside R/m, from a host of the domain", via: "192.0.2.7", strict: .downlinkOuterSourceUnknown,
            sit: .downlinkInnerSourceSpoofed),
        Downlink("our own", via: "10.100.100.1", from: elsewhere, strict: .downlinkOuterSourceMartian),
        Downlink(
            "our own, from our own", via: "10.100.100.1", from: us, strict: .downlinkOuterSourceMartian),
        Downlink("a broadcast address", via: "10.255.255.255", from: elsewhere, strict: .downlinkOuterSourceMartian),
        Downlink(
            "a private host in 6to4", Policies.sixToFour, via: "10.0.0.2", from: "2002:a00:2::1", to: "2002:c000:201::1",
            strict: .downlinkOuterSourceUnknown),
        // Nested tunnels
        Downlink("IPv6 in IPv6", next: 41, strict: .downlinkNestedTunnel),
        Downlink("IPv4 in IPv6", next: 4, strict: .downlinkNestedTunnel),
        Downlink("IPv6 in IPv6, remote", Policies.remote, via: "198.51.100.7", next: 41, strict: .downlinkNestedTunnel),
        // Whom a point-to-point tunnel talks to is no source check.
        Downlink("remote", Policies.remote, via: "198.51.100.7", from: "::1", to: "ff02::1", strict: nil),
    ]

    @Test(arguments: downlink)
    func levelsOfTheDownlink(row: Downlink) {
        func expect(_ level: SourceCheck, _ reason: DropReason?) {
            let verdict = row.policy.with(sourceCheck: level).decapsulate(row.packet.raw)
            let expected: DownlinkVerdict = reason.map { .drop($0) } ?? DecapsulateTests.deliver(80)
            #expect(verdict == expected, "\(level)")
        }
        expect(.strict, row.strict)
        expect(.sit, row.sit)
        expect(.off, nil)
    }

    // What is no packet, or not ours, or not the remote's, no level takes.
    @Test(arguments: SourceCheck.allCases)
    func noLevelTakesThese(level: SourceCheck) {
        let good = Packets.inner(Self.peer, Self.us)
        func verdict(_ policy: TunnelPolicy, _ packet: [UInt8]) -> DownlinkVerdict {
            policy.with(sourceCheck: level).decapsulate(packet.raw)
        }
        let (host, local) = ("10.100.200.2", "10.100.100.1")
        let version4 = Packets.inner(Self.peer, Self.us, version: 4)
        #expect(verdict(Policies.site, Packets.outer(host, "10.100.100.2", good)) == .drop(.downlinkOuterDestination))
        #expect(verdict(Policies.site, Packets.outer(host, local, version4)) == .drop(.downlinkNotIPv6))
        #expect(verdict(Policies.site, Packets.outer(host, local, good.dropLast())) == .drop(.downlinkTruncated))
        #expect(verdict(Policies.site, Packets.outer(host, local, good, tos: 3)) == .drop(.downlinkECN))
        #expect(verdict(Policies.remote, Packets.outer("198.51.100.8", "192.0.2.1", good)) == .drop(.downlinkOuterSourceUnknown))
    }

    struct Uplink: CustomTestStringConvertible {
        let name: String
        let policy: TunnelPolicy
        let packet: [UInt8]
        let strict: UplinkVerdict, sit: UplinkVerdict
        var testDescription: String { name }

        init(
            _ name: String, _ policy: TunnelPolicy = Policies.site, from source: String = us, to destination: String = peer,
            next: UInt8 = 59, strict: UplinkVerdict, sit: UplinkVerdict
        ) {
            packet = Packets.inner(source, destination, next: next)
            (self.name, self.policy, self.strict, self.sit) = (name, policy, strict, sit)
        }
    }

    static let send = EncapsulateTests.send("10.100.200.2")
    /// 0.0.0.0 in a domain of whole IPv4 addresses.
    static let zeroth = "fd00::1"

    static let uplink: [Uplink] = [
        Uplink("to the embedded host", strict: send, sit: send),
        Uplink("a source outside", from: elsewhere, strict: .drop(.uplinkForeignSource), sit: send),
        Uplink("another's source", from: other, strict: .drop(.uplinkForeignSource), sit: send),
        Uplink("no source", from: "::", strict: .drop(.uplinkForeignSource), sit: send),
        Uplink("to ourselves", to: us, strict: .drop(.uplinkLocalDestination), sit: EncapsulateTests.send("10.100.100.1")),
        Uplink("nested", next: 41, strict: .drop(.uplinkNestedTunnel), sit: send),
        Uplink(
            "nested, remote", Policies.remote, next: 4, strict: .drop(.uplinkNestedTunnel),
            sit: EncapsulateTests.send("198.51.100.7")),
        Uplink(
            "a foreign source, to the relay", Policies.oneRelay, from: elsewhere, to: "3fff:aaa::1",
            strict: .drop(.uplinkForeignSource), sit: EncapsulateTests.send("192.0.2.33")),
        Uplink(
            "a foreign source, to a route", Policies.routed, from: elsewhere, to: "3fff:a::1",
            strict: .drop(.uplinkForeignSource), sit: EncapsulateTests.send("192.0.2.9")),
        Uplink(
            "a foreign source, to a route inside the domain", Policies.routed, from: elsewhere, to: "2001:db8:64c8:280::1",
            strict: .drop(.uplinkForeignSource), sit: EncapsulateTests.send("10.1.1.1")),
        // What the kernel has no unicast route to, it refuses on the raw socket; but it would send to a group.
        Uplink(
            "to 127.0.0.1", Policies.sixToFour, from: "2002:c000:201::1", to: "2002:7f00:1::1",
            strict: .drop(.uplinkMartianDestination), sit: EncapsulateTests.send("127.0.0.1")),
        Uplink(
            "to our broadcast address", Policies.sixToFour, from: "2002:c000:201::1", to: "2002:c000:2ff::1",
            strict: .drop(.uplinkMartianDestination), sit: EncapsulateTests.send("192.0.2.255")),
        Uplink(
            "to a private host", Policies.sixToFour, from: "2002:c000:201::1", to: "2002:a00:1::1",
            strict: .drop(.uplinkPrivateDestination), sit: EncapsulateTests.send("10.0.0.1")),
        Uplink(
            "to a group", Policies.sixToFour, from: "2002:c000:201::1", to: "2002:efff:ffff::1",
            strict: .drop(.uplinkMartianDestination), sit: .drop(.uplinkMartianDestination)),
        // 0.0.0.0 is no answer.
        Uplink(
            "to 0.0.0.0", Policies.wholeIPv4, from: "fd00:0:c000:201::1", to: zeroth, strict: .drop(.uplinkMartianDestination),
            sit: .drop(.uplinkNoRoute)),
        Uplink(
            "to 0.0.0.0, with a relay",
            Policies.make("192.0.2.1", Policies.domain("fd00::/32", "0.0.0.0/0"), relays: ["192.0.2.33"]),
            from: "fd00:0:c000:201::1", to: zeroth, strict: .drop(.uplinkMartianDestination),
            sit: EncapsulateTests.send("192.0.2.33")),
        // No next hop: sit counts an error.
        Uplink("outside, no relay", to: elsewhere, strict: .drop(.uplinkNoRoute), sit: .drop(.uplinkNoRoute)),
        Uplink(
            "to all nodes", from: "fe80::1", to: "ff02::1", strict: .drop(.uplinkMulticastDestination),
            sit: .drop(.uplinkMulticastDestination)),
        Uplink(
            "link-local", from: "fe80::1", to: "fe80::2", strict: .drop(.uplinkLinkLocalDestination),
            sit: .drop(.uplinkLinkLocalDestination)),
    ]

    @Test(arguments: uplink)
    func levelsOfTheUplink(row: Uplink) {
        let strict = row.policy.encapsulate(row.packet.raw)
        #expect(strict == row.strict)
        for level in [SourceCheck.sit, .off] {
            let verdict = row.policy.with(sourceCheck: level).encapsulate(row.packet.raw)
            #expect(verdict == row.sit, "\(level)")
        }
    }
}
