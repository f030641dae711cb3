import Testing
import TunnelCore

@Suite struct TunnelPolicyTests {
    // --ttl 64, --tos inherit, --pmtudisc
    @Test func defaults() {
        let policy = TunnelPolicy(local: v4("192.0.2.1"), peers: .remote(v4("198.51.100.7")))
        #expect(policy.ttl == .fixed(64))
        #expect(policy.tos == .inherit)
        #expect(policy.dontFragment)
        #expect(policy.broadcast == .any)
    }

    // Private hosts in 2002::/16 are refused only where our own address is public.
    @Test(arguments: [
        ("2002::/16", "0.0.0.0/0", "192.0.2.1", true), ("2002::/16", "0.0.0.0/0", "10.0.0.1", false),
        ("2002::/16", "0.0.0.0/0", "172.31.0.1", false), ("2002::/16", "0.0.0.0/0", "192.168.0.1", false),
        ("2002::/16", "0.0.0.0/0", "169.254.0.1", false), ("2002::/16", "0.0.0.0/0", "172.32.0.1", true),
        ("fd00::/32", "0.0.0.0/0", "192.0.2.1", false), ("2001:db8::/32", "10.0.0.0/8", "192.0.2.1", false),
    ])
    func privateHosts(prefix: String, relayPrefix: String, local: String, isRefused: Bool) throws {
        let peers = try DomainPeers(domain: Policies.domain(prefix, relayPrefix), local: v4(local))
        #expect(peers.refusesPrivate == isRefused)
    }

    @Test func thePlanRefusesForThePeers() {
        #expect(throws: AddressPlanError.reserved(prefix6("ff00::/8"))) {
            try DomainPeers(domain: .sixToFour, local: v4("192.0.2.1"), localPrefixes: [prefix6("ff00::/8")])
        }
        #expect(throws: AddressPlanError.endpointNotUnicast(prefix6("fd00::/8"), v4("127.0.0.1"))) {
            try DomainPeers(domain: .sixToFour, local: v4("192.0.2.1"), routes: [(prefix6("fd00::/8"), v4("127.0.0.1"))])
        }
    }
}
