import Testing
import TunnelCore

@testable import tund

private func claim(
    _ peers: String, _ mode: TunnelMode = .ip6ip, local: String = "10.0.0.1", device: String? = nil
) -> TunnelClaim {
    TunnelClaim(mode: mode, local: IPv4Address(local)!, peers: try! IPv4Prefix(parsing: peers), device: device)
}

/// Two tunnels on one host: which may stand beside each other.
@Suite struct TunnelClaimTests {
    @Test(arguments: [
        ("", ["0.0.0.0/0"]),
        ("--6rd-prefix fd00::/40 --6rd-relay-prefix 10.0.0.0/8", ["10.0.0.0/8"]),
        ("--6rd-prefix fd00::/40 --6rd-relay-prefix 10.0.0.0/8 --v4-compatible", ["0.0.0.0/0"]),
        ("--isatap --prl 192.0.2.1", ["0.0.0.0/0"]),
        ("--remote 192.0.2.1", ["192.0.2.1/32"]),
        ("--remote 192.0.2.1 --6rd-prefix fd00::/32", ["192.0.2.1/32"]),
        (
            """
            --6rd-prefix fd00::/40 --6rd-relay-prefix 10.0.0.0/8 --relay 192.0.2.1 --relay 10.9.0.1 --route fd77::/48=192.0.2.1 \
            --route fd78::/48=192.0.2.2
            """, ["10.0.0.0/8", "192.0.2.1/32", "192.0.2.2/32"]
        ),
    ])
    func coverEveryPeer(line: String, peers: [String]) throws {
        let claims = TunnelClaim.claims(of: try RunCommandTests.parse(line), local: IPv4Address(10, 0, 0, 1))
        #expect(claims == peers.map { claim($0) })
    }

    @Test(arguments: [
        (claim("10.0.0.0/8"), claim("10.0.0.0/8"), true),
        (claim("10.0.0.0/8"), claim("10.9.0.0/16"), true),
        (claim("10.0.0.0/8"), claim("10.0.0.2/32"), true),
        (claim("0.0.0.0/0"), claim("192.0.2.1/32"), true),
        (claim("192.0.2.1/32"), claim("192.0.2.1/32"), true),
        (claim("192.0.2.1/32"), claim("192.0.2.2/32"), false),
        (claim("10.0.0.0/8"), claim("192.0.2.2/32"), false),
        (claim("192.0.2.1/32"), claim("192.0.2.1/32", .ipip), false),
        (claim("192.0.2.1/32", .any), claim("192.0.2.1/32", .ipip), true),
        (claim("192.0.2.1/32", .any), claim("10.0.0.0/8"), false),
        (claim("10.0.0.0/8"), claim("10.0.0.0/8", local: "10.0.0.2"), false),
        (claim("10.0.0.0/8", device: "eth0"), claim("10.0.0.0/8", device: "eth1"), false),
        (claim("10.0.0.0/8", device: "eth0"), claim("10.0.0.0/8"), true),
    ])
    func overlap(_ one: TunnelClaim, _ other: TunnelClaim, _ expected: Bool) {
        #expect(one.overlaps(other) == expected)
        #expect(other.overlaps(one) == expected)
        #expect(((try? TunnelClaim.check([one], against: [other])) == nil) == expected)
    }

    @Test func namesAreReadBack() {
        for one in [claim("10.0.0.0/8"), claim("0.0.0.0/0", .any, device: "eth0.7")] {
            #expect(TunnelClaim(name: Substring(one.name)) == one)
        }
        let others = [
            "", "tund", "/tmp/tund", "tund/ip6ip/10.0.0.1/10.0.0.0/8", "tund/ip6ip/10.0.0.1/10.0.0.0/33/",
            "tund/mplsip/10.0.0.1/10.0.0.0/8/", "other/ip6ip/10.0.0.1/10.0.0.0/8/",
        ]
        for name in others {
            #expect(TunnelClaim(name: Substring(name)) == nil, "\(name)")
        }
    }

    @Test(arguments: [
        ("  41: 0100000A:0029 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 80934 2", "10.0.0.1"),
        ("   1: 0100000A:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 80934 2", nil),
        ("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref", nil),
        ("", nil),
    ])
    func rawSockets(line: String, address: String?) {
        #expect(TunnelClaim.localAddress(ofRawSocket: line) == address.flatMap { IPv4Address($0) })
    }
}

@Suite struct KernelTunnelTests {
    static func sit(
        _ local: String, _ remote: String, _ mode: TunnelMode = .ip6ip, isUp: Bool = true, device: Int32 = 0
    ) -> KernelTunnel {
        KernelTunnel(
            name: "sit1", isUp: isUp, mode: mode, local: IPv4Address(local)!, remote: IPv4Address(remote)!, device: device)
    }

    @Test(arguments: [
        (sit("10.0.0.1", "10.0.0.2"), true),
        (sit("0.0.0.0", "10.0.0.2"), true),
        (sit("10.0.0.1", "0.0.0.0"), true),
        (sit("0.0.0.0", "0.0.0.0"), true),
        (sit("0.0.0.0", "0.0.0.0", isUp: false), false),
        (sit("10.0.0.9", "0.0.0.0"), false),
        (sit("10.0.0.1", "192.0.2.1"), false),
        (sit("10.0.0.1", "10.0.0.2", .any), true),
        (sit("10.0.0.1", "10.0.0.2", .ipip), false),
        (sit("10.0.0.1", "10.0.0.2", device: 2), true),
        (sit("10.0.0.1", "10.0.0.2", device: 3), false),
    ])
    func takesTheSamePackets(tunnel: KernelTunnel, expected: Bool) {
        #expect(tunnel.takes(claim("10.0.0.0/8"), deviceIndex: 2) == expected)
        let claims = [claim("172.16.0.0/12"), claim("10.0.0.0/8")]
        #expect(((try? KernelTunnel.check([tunnel], claims, deviceIndex: 2)) == nil) == expected)
    }
}
