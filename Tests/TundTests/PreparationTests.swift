import Testing
import TunnelCore

@testable import tund

/// What the options make of the TUN interface, and of the policy.
@Suite struct PreparationTests {
    static let local = IPv4Address(10, 0, 0, 1)

    static func plan(_ line: String) throws -> TunLinkPlan {
        Preparation.linkPlan(try RunCommandTests.parse(line), local: local, mtu: 1480)
    }

    @Test(arguments: [
        // options, addresses, routes, unreachable
        ("", ["2002:a00:1::1/16"], [], ["2002:a00:1::/48"]),
        ("--6rd-prefix fd00::/32", ["fd00:0:a00:1::1/32"], [], ["fd00:0:a00:1::/64"]),
        (
            "--6rd-prefix fd00::/32 --relay 10.0.0.9 --default-route", ["fd00:0:a00:1::1/32"], ["::/0"],
            ["fd00:0:a00:1::/64"]
        ),
        (
            "--6rd-prefix fd00::/32 --route 2001:db8::/32=10.0.0.2 --local-prefix fd77::/48", ["fd00:0:a00:1::1/32"],
            ["2001:db8::/32"], ["fd00:0:a00:1::/64", "fd77::/48"]
        ),
        // An address that does not cover the domain leaves the domain without a route, so it gets one.
        ("--6rd-prefix fd00::/32 --address fd00:0:a00:1::7/64", ["fd00:0:a00:1::7/64"], ["fd00::/32"], ["fd00:0:a00:1::/64"]),
        ("--6rd-prefix fd00::/32 --address fd00:0:a00:1::7/32", ["fd00:0:a00:1::7/32"], [], ["fd00:0:a00:1::/64"]),
        ("--6rd-prefix fd00::/32 --address none --relay 10.0.0.9 --default-route", [], [], []),
        ("--6rd-prefix fd00::/32 --v4-compatible", ["fd00:0:a00:1::1/32", "::a00:1/96"], [], ["fd00:0:a00:1::/64"]),
        ("--6rd-prefix fd00::/32 --source-check sit", ["fd00:0:a00:1::1/32", "::a00:1/96"], [], ["fd00:0:a00:1::/64"]),
        ("--isatap", ["fe80::5efe:a00:1/64"], [], []),
        (
            "--isatap --isatap-prefix fd00:1::/64 --isatap-prefix fd00:2::/64 --prl 10.0.0.9 --default-route",
            ["fe80::5efe:a00:1/64", "fd00:1::5efe:a00:1/64", "fd00:2::5efe:a00:1/64"], ["::/0"], []
        ),
        ("--isatap --address fd00:1::7/64 --local-prefix fd77::/48", ["fe80::5efe:a00:1/64", "fd00:1::7/64"], [], ["fd77::/48"]),
        ("--isatap --address none", [], [], []),
        ("--remote 10.0.0.2", ["fe80::a00:1/64"], [], []),
        ("--remote 10.0.0.2 --source-check sit", ["fe80::a00:1/64"], [], []),
        ("--remote 10.0.0.2 --address 2001:db8::2/64 --default-route", ["fe80::a00:1/64", "2001:db8::2/64"], ["::/0"], []),
        ("--remote 10.0.0.2 --6rd-prefix fd00::/32", ["fe80::a00:1/64", "fd00:0:a00:1::1/32"], [], ["fd00:0:a00:1::/64"]),
    ])
    func linkPlan(line: String, addresses: [String], routes: [String], unreachable: [String]) throws {
        let plan = try Self.plan(line)
        #expect(plan.addresses.map(\.description) == addresses)
        #expect(plan.routes.map(\.description) == routes)
        #expect(plan.unreachable.map(\.description) == unreachable)
        #expect(plan.isPointToPoint == line.contains("--remote"))
    }

    @Test func aHostOutsideTheRelayPrefixIsRefused() throws {
        let configuration = try RunCommandTests.parse("--6rd-prefix fd00::/32 --6rd-relay-prefix 192.168.0.0/16")
        #expect(throws: Failure.self) {
            try Preparation.policy(configuration, local: Self.local, broadcast: nil, mtu: 1480)
        }
    }
}
