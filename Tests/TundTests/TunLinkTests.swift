import Testing
import TunnelCore

@testable import tund

@Suite struct TunLinkPlanTests {
    @Test func namesItsActionsAsACommandLineWould() throws {
        let plan = TunLinkPlan(
            mtu: 1480, transmitQueueLength: 1000, isPointToPoint: false,
            addresses: [.init(address: IPv6Address("2002:a00:1::1")!, prefixLength: 16)],
            routes: [try IPv6Prefix(parsing: "::/0")], unreachable: [try IPv6Prefix(parsing: "2002:a00:1::/48")])
        #expect(
            plan.commands(device: "tund0") == [
                "ip link set tund0 addrgenmode none",
                "ip link set tund0 mtu 1480 txqueuelen 1000 multicast off",
                "ip link set tund0 up",
                "ip -6 address add 2002:a00:1::1/16 dev tund0 nodad",
                "ip -6 route add ::/0 dev tund0",
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
}
