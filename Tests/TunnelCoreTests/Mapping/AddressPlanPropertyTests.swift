import Testing

@testable import TunnelCore

/// The plan with its shortcuts against a scan of all prefixes for the longest one.
@Suite struct AddressPlanPropertyTests {
    @Test(arguments: 0..<60)
    func theLongestPrefixDecides(seed: Int) throws {
        var random = PlanGenerator(state: UInt64(seed) &* 77 &+ 1)
        let prefixLength = Int.random(in: 8...32, using: &random)
        let root = IPv6Address(high: 0x2001_0DB8_0000_0000, low: 0)
        let domain = try Domain(
            prefix: IPv6Prefix(masking: root, length: prefixLength), relayPrefix: IPv4Prefix(masking: .any, length: 0))
        let local = IPv4Address(10, 0, 0, 1)
        let delegated = try #require(domain.delegatedPrefix(of: local))
        /// Near the domain, in it, or in our own part of it.
        func prefix() -> IPv6Prefix {
            let base = [root, delegated.address, IPv6Address(high: .random(in: 0...(.max), using: &random), low: 0)]
                .randomElement(using: &random)!
            let noise = UInt64.random(in: 0...(.max), using: &random) >> UInt64.random(in: 8...63, using: &random)
            let address = IPv6Address(high: base.high ^ noise, low: 0)
            return IPv6Prefix(masking: address, length: .random(in: 1...64, using: &random))
        }
        var routes: [(prefix: IPv6Prefix, endpoint: IPv4Address)] = []
        var locals: [IPv6Prefix] = []
        for _ in 0..<Int.random(in: 0...3, using: &random) { routes.append((prefix(), IPv4Address(10, 0, 0, 9))) }
        for _ in 0..<Int.random(in: 0...2, using: &random) { locals.append(prefix()) }
        if seed % 7 == 0 { locals.append(domain.prefix) }
        guard let plan = try? AddressPlan(domain: domain, local: local, localPrefixes: locals, routes: routes) else { return }

        var entries: [(IPv6Prefix, Owner)] = [(domain.prefix, .embedded)]
        entries += routes.map { ($0.prefix, .endpoint($0.endpoint)) } + (locals + [delegated]).map { ($0, .local) }
        entries += [
            (IPv6Prefix(masking: .unspecified, length: 96), .invalid),
            (IPv6Prefix(masking: IPv6Address(high: 0, low: 0xFFFF << 32), length: 96), .invalid),
            (IPv6Prefix(masking: IPv6Address(high: 0xFE80 << 48, low: 0), length: 10), .linkLocal),
            (IPv6Prefix(masking: IPv6Address(high: 0xFF00 << 48, low: 0), length: 8), .multicast),
        ]
        for _ in 0..<300 {
            let near = entries.randomElement(using: &random)!.0.address
            let noise = UInt64.random(in: 0...(.max), using: &random) >> UInt64.random(in: 0...63, using: &random)
            let address = IPv6Address(high: near.high ^ noise, low: near.low ^ (noise &* 3))
            var longest = -1
            var expected = Owner.outside
            for (prefix, owner) in entries where prefix.contains(address) && prefix.length >= longest {
                (longest, expected) = (prefix.length, owner)
            }
            #expect(plan.owner(of: address) == expected, "seed \(seed): \(address)")
        }
    }
}

private struct PlanGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return (state ^ state >> 29) &* 0x9E37_79B9_7F4A_7C15
    }
}
