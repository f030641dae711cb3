import Glibc
import Testing
import TunnelCore

@testable import tund

private func claim(
    _ peers: String, _ mode: TunnelMode = .ip6ip, local: String = "10.0.0.1", device: Int32? = nil
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
        let claims = TunnelClaim.claims(of: try RunCommandTests.parse(line), local: IPv4Address(10, 0, 0, 1), device: nil)
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
        (claim("10.0.0.0/8", device: 2), claim("10.0.0.0/8", device: 3), false),
        (claim("10.0.0.0/8", device: 2), claim("10.0.0.0/8"), true),
    ])
    func overlap(_ one: TunnelClaim, _ other: TunnelClaim, _ expected: Bool) {
        #expect(one.overlaps(other) == expected)
        #expect(other.overlaps(one) == expected)
        #expect(((try? TunnelClaim.check([one], against: [other])) == nil) == expected)
    }
}

/// What others see of a claim, and when it counts.
@Suite struct StandingClaimTests {
    @Test func namesAreReadBack() {
        for one in [
            claim("10.0.0.0/8"), claim("0.0.0.0/0", .any, device: 7), claim("192.0.2.1/32", device: .max),
        ] {
            for number in [1, 0x9c0ffee, UInt64.max] {
                let standing = StandingClaim(one, number: number)
                #expect(StandingClaim(name: standing.name) == standing)
                #expect(standing.name.utf8.count < 108, "sun_path")
            }
        }
        #expect(StandingClaim(name: "tund/ip6ip/10.0.0.1/10.0.0.0/8/")?.number == 0)
        let others = [
            "", "tund", "/tmp/tund", "tund/ip6ip/10.0.0.1/10.0.0.0/8", "tund/ip6ip/10.0.0.1/10.0.0.0/33//1",
            "tund/mplsip/10.0.0.1/10.0.0.0/8//1", "other/ip6ip/10.0.0.1/10.0.0.0/8//1", "tund/ip6ip/10.0.0.1/10.0.0.0/8//",
            "tund/ip6ip/10.0.0.1/10.0.0.0/8//x", "tund/ip6ip/10.0.0.1/10.0.0.0/8//10000000000000000",
            "tund/ip6ip/10.0.0.1/10.0.0.0/8//1/", "tund/" + String(repeating: "/", count: 102), "tund/\u{FFFD}\0",
        ]
        for name in others { #expect(StandingClaim(name: name) == nil, "\(name)") }
    }

    @Test(arguments: [
        // uid of the name, raw sockets, counts
        (UInt32(0), [RawSocketOwner(local: IPv4Address(10, 0, 0, 1), uid: 0, inode: 80934)], true),
        (1000, [RawSocketOwner(local: IPv4Address(10, 0, 0, 1), uid: 0, inode: 80934)], false),
        (nil, [RawSocketOwner(local: IPv4Address(10, 0, 0, 1), uid: 0, inode: 80934)], true),
        (0, [RawSocketOwner(local: IPv4Address(10, 0, 0, 2), uid: 0, inode: 80934)], false),
        (
            1000,
            [
                .init(local: IPv4Address(10, 0, 0, 1), uid: 0, inode: 80934),
                .init(local: IPv4Address(10, 0, 0, 1), uid: 1000, inode: 80934),
            ], true
        ),
        (0, [], false), (nil, [], false),
    ])
    func countsBesideARawSocketOfTheSameUser(uid: UInt32?, sockets: [RawSocketOwner], counts: Bool) {
        let standing = StandingClaim(claim("10.0.0.0/8"), number: 7)
        let names = [UnixSocketName(name: standing.name, uid: uid), UnixSocketName(name: "tund/", uid: uid)]
        #expect(StandingClaim.standing(names, beside: sockets) == (counts ? [standing] : []))
    }

    @Test(arguments: [
        ([], StandingClaim.Precedence.alone), ([8], .wait), ([6], .giveUp), ([8, 9], .wait), ([9, 6], .giveUp), ([0], .giveUp),
    ])
    func theLesserNumberStays(others: [UInt64], expected: StandingClaim.Precedence) {
        let others = others.map { StandingClaim(claim("10.0.0.0/8"), number: $0) }
        #expect(StandingClaim.precedence(of: 7, among: others) == expected)
    }

    @Test(arguments: [
        (
            "  41: 0100000A:0029 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 80934 2",
            RawSocketOwner(local: IPv4Address(10, 0, 0, 1), uid: 0, inode: 80934)
        ),
        (
            "   4: 0100000A:0004 0200000A:0000 07 00000000:00000000 00:00000000 00000000 65534        0 80934 2 0000000000000000 0",
            RawSocketOwner(local: IPv4Address(10, 0, 0, 1), uid: 65534, inode: 80934)
        ),
        ("   1: 0100000A:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 80934 2", nil),
        ("  41: 0100000A:0029 00000000:0000 07 00000000:00000000 00:00000000 00000000", nil),
        ("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref", nil),
        ("", nil),
    ])
    func rawSockets(line: String, owner: RawSocketOwner?) { #expect(RawSocketOwner(line: line) == owner) }

    /// The kernel's answer of this moment: a name of ours, with our uid.
    @Test func theKernelTellsWhoseANameIs() throws {
        let held = try TunnelClaim.Held(room: 1)
        try held.lay([claim("10.0.0.0/8")])
        let names = UnixSocketNames()
        let name = StandingClaim(claim("10.0.0.0/8"), number: held.number).name
        let found = names.all(beginningWith: "tund/ip6ip/10.0.0.1/").filter { $0.name == name }
        #expect(found == [UnixSocketName(name: name, uid: getuid())])
        #expect(names.listed().contains(UnixSocketName(name: name, uid: nil)), "where the kernel does not tell the uid")
        held.withdraw()
        #expect(!names.all(beginningWith: "tund/").contains { $0.name == name })
    }

    /// Cut off, lengths of nothing and of too much: what is whole counts, and nothing is read beyond the end.
    @Test func answersOfAnyShapeAreTaken() {
        var attribute: [UInt8] = [10, 0, 0, 0] + Array("\0tund/x".utf8.prefix(6)) + [0, 0]  // UNIX_DIAG_NAME
        attribute += [8, 0, 7, 0, 42, 0, 0, 0]  // UNIX_DIAG_UID
        let body = [UInt8](repeating: 0, count: 16) + attribute
        let message = [UInt8(16 + body.count), 0, 0, 0, 20, 0, 3, 0] + [UInt8](repeating: 0, count: 8) + body
        let end: [UInt8] = [16, 0, 0, 0, 3, 0, 0, 0] + [UInt8](repeating: 0, count: 8)  // NLMSG_DONE
        func take(_ datagram: [UInt8]) -> ([UnixSocketName], UnixSocketNames.Progress) {
            var names: [UnixSocketName] = []
            let progress = UnixSocketNames.take(datagram[...], beginningWith: [0] + Array("tund/".utf8), into: &names)
            return (names, progress)
        }
        #expect(take(message + message + end) == ([.init(name: "tund/", uid: 42), .init(name: "tund/", uid: 42)], .end))
        for count in message.indices { #expect(take(Array(message.prefix(count))) == ([], .more)) }
        for index in message.indices {
            for value: UInt8 in [0, 3, 15, 255] {
                var broken = message
                broken[index] = value
                #expect(take(broken + end).0.count <= 1)
            }
        }
        #expect(take([20, 0, 0, 0, 2, 0, 0, 0] + [UInt8](repeating: 0, count: 12)).1 == .refusal)  // NLMSG_ERROR
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
