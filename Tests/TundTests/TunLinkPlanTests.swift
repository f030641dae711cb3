import Testing
import TunnelCore

@testable import tund

@Suite struct TunLinkPlanTests {
    static let address = TunLinkPlan.Address(address: IPv6Address("2002:a00:1::1")!, prefixLength: 16)
    static let other = TunLinkPlan.Address(address: IPv6Address("2002:a00:7::1")!, prefixLength: 16)
    static let everything = try! IPv6Prefix(parsing: "::/0")
    static let own = try! IPv6Prefix(parsing: "2002:a00:1::/48")
    static let othersOwn = try! IPv6Prefix(parsing: "2002:a00:7::/48")

    static let plan = TunLinkPlan(
        mtu: 1480, transmitQueueLength: 1000, isPointToPoint: false, addresses: [address], routes: [everything],
        takesNextHops: true, unreachable: [own])

    static func route(
        _ prefix: IPv6Prefix, _ kind: Route6.Kind = .unicast, table: UInt32 = Route6.mainTable, metric: UInt32? = nil,
        via gateway: IPv6Address? = nil
    ) -> Route6 {
        Route6(
            prefix: prefix, kind: kind, table: table,
            metric: metric ?? (kind == .unicast ? TunLinkPlan.metric : TunLinkPlan.lastMetric), gateways: [gateway])
    }

    /// All that `plan` wants.
    static let settled = TunState(
        addresses: [address], routes: [route(everything), route(TunLinkPlan.nextHops), route(own, .unreachable)],
        hasNexthop: true)

    @Test func namesItsActionsAsACommandLineWould() {
        #expect(
            Self.plan.commands(device: "tund0") == [
                "ip link set tund0 addrgenmode none",
                "ip link set tund0 mtu 1480",
                "ip link set tund0 txqueuelen 1000",
                "ip link set tund0 multicast off",
                "ip link set tund0 up",
                "ip -6 address add 2002:a00:1::1/16 dev tund0 nodad",
                "ip -6 route add ::/0 dev tund0",
                "ip -6 route append ::/96 dev tund0",
                "ip -6 nexthop add id 1953853028 dev tund0",
                "ip -6 route add unreachable 2002:a00:1::/48 nhid 1953853028 metric 4294967295",
            ])
    }

    @Test func keepsMulticastWithOneRemote() {
        let plan = TunLinkPlan(
            mtu: 1480, isPointToPoint: true,
            addresses: [.init(address: .linkLocal(embedding: IPv4Address(10, 0, 0, 1)), prefixLength: 64)])
        #expect(
            plan.commands(device: "p2p") == [
                "ip link set p2p addrgenmode none",
                "ip link set p2p mtu 1480",
                "ip link set p2p up",
                "ip -6 address add fe80::a00:1/64 dev p2p nodad",
            ])
    }

    /// What the kernel has, beside what the plan wants, and the changes.
    static let differences: [(String, @Sendable (inout TunState) -> Void, [TunChange])] = [
        ("nothing is missing", { _ in }, []),
        ("an address of somebody else's", { $0.addresses.append(other) }, []),
        ("the address", { $0.addresses = [] }, [.addAddress(address)]),
        (
            "the address with another length", { $0.addresses = [.init(address: address.address, prefixLength: 64)] },
            [.addAddress(address)]
        ),
        ("a route", { $0.routes.remove(at: 0) }, [.addRoute(everything, besideOthers: false)]),
        (
            "a route, but somebody put one with a next hop in its place",
            { $0.routes[0] = route(everything, via: IPv6Address("::10.0.0.9")) }, []
        ),
        (
            "a route, there is one of another metric", { $0.routes[0] = route(everything, metric: 9) },
            [.addRoute(everything, besideOthers: false)]
        ),
        ("the network of next hops", { $0.routes.remove(at: 1) }, [.addRoute(TunLinkPlan.nextHops, besideOthers: true)]),
        ("the unreachable route", { $0.routes.remove(at: 2) }, [.addUnreachable(own)]),
        (
            "the nexthop object, and the route over it with it",
            {
                $0.routes.remove(at: 2)
                $0.hasNexthop = false
            }, [.addNexthop, .addUnreachable(own)]
        ),
        (
            "everything, after down and up", { $0 = TunState() },
            [
                .addAddress(address), .addRoute(everything, besideOthers: false),
                .addRoute(TunLinkPlan.nextHops, besideOthers: true), .addNexthop, .addUnreachable(own),
            ]
        ),
        ("it is down", { $0 = TunState(isUp: false) }, []),
        ("its MTU is too small for IPv6", { $0 = TunState(mtu: 1279) }, []),
        (
            "the kernel forgot not to make addresses",
            {
                $0.generatesAddresses = true
                $0.addresses.append(other)
                $0.kernelMade = [other]
            }, [.noAutomaticAddresses, .removeAddress(other)]
        ),
        (
            "it is in a VRF, and the routes are not", { $0.table = 10 },
            [
                .addRoute(everything, besideOthers: false), .addRoute(TunLinkPlan.nextHops, besideOthers: true),
                .addUnreachable(own),
            ]
        ),
    ]

    @Test(arguments: differences.indices) func wantsWhatIsMissing(_ index: Int) {
        let (name, change, expected) = Self.differences[index]
        var state = Self.settled
        change(&state)
        #expect(Self.plan.changes(from: state, retired: .init()) == expected, "\(name)")
    }

    @Test func whatAnEarlierPlanLeftGoesLast() {
        var next = Self.plan
        next.addresses = [Self.other]
        next.unreachable = [Self.othersOwn]
        var retired = TunLinkPlan.Retired()
        retired.add(Self.plan)
        #expect(
            next.changes(from: Self.settled, retired: retired) == [
                .addAddress(Self.other), .addUnreachable(Self.othersOwn), .removeAddress(Self.address),
                .removeUnreachable(Self.own),
            ])
        // There and back.
        retired.add(next)
        #expect(Self.plan.changes(from: Self.settled, retired: retired) == [])
    }

    @Test func aPlanWithoutAddressesWantsNothing() {
        let plan = TunLinkPlan(mtu: 1480, isPointToPoint: false)
        #expect(plan.changes(from: TunState(generatesAddresses: true), retired: .init()) == [])
    }
}
