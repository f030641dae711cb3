import Testing
import TunnelCore

@Suite struct RouteTableTests {
    static func table(_ entries: [(String, Int)]) -> RouteTable<Int> {
        RouteTable(entries.map { (prefix: prefix6($0.0), value: $0.1) }, fallback: -1)
    }

    @Test(arguments: ["::", "::1", "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"])
    func emptyTableAlwaysFallsBack(address: String) {
        #expect(Self.table([]).lookup(v6(address)) == -1)
    }

    @Test(arguments: [
        ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", -1),
        ("2001:db8::", 32), ("2001:db8:0:ffff:ffff:ffff:ffff:ffff", 32),
        ("2001:db8:1::", 48), ("2001:db8:1:1::", 64), ("2001:db8:1:1::7", 128), ("2001:db8:1:1::8", 64),
        ("2001:db8:1:2::", 48), ("2001:db8:1:ffff:ffff:ffff:ffff:ffff", 48),
        ("2001:db8:2::", 482), ("2001:db8:3::", 32),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 32), ("2001:db9::", -1),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", -1), ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1),
    ])
    func longestPrefixWins(address: String, value: Int) {
        let table = Self.table([
            ("2001:db8:1:1::7/128", 128), ("2001:db8:1::/48", 48), ("2001:db8:2::/48", 482), ("2001:db8::/32", 32),
            ("2001:db8:1:1::/64", 64), ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 1),
        ])
        #expect(table.lookup(v6(address)) == value)
    }

    @Test func ofEqualPrefixesTheLaterCounts() {
        #expect(Self.table([("fd00::/8", 1), ("fd00::/8", 2), ("fd00::/8", 3)]).lookup(v6("fd00::1")) == 3)
        #expect(Self.table([("fd00::/8", 3), ("fd00::/16", 9), ("fd00::/8", 1)]).lookup(v6("fd01::1")) == 1)
        #expect(Self.table([("::/0", 1), ("::/0", 2)]).lookup(v6("ffff::")) == 2)
        #expect(Self.table([("fd00::/8", 1), ("fd00::/8", 2)]).lookup(v6("fe00::")) == -1)
    }

    @Test func thePrefixOfAllTakesTheFallbacksPlace() {
        let table = Self.table([("::/0", 0), ("8000::/1", 1)])
        #expect(table.lookup(v6("::")) == 0)
        #expect(table.lookup(v6("7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")) == 0)
        #expect(table.lookup(v6("8000::")) == 1)
        #expect(table.lookup(v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")) == 1)
    }

    /// What the table must answer: look at every prefix, keep the longest, the later of equals.
    private static func scan(_ entries: [(prefix: IPv6Prefix, value: Int)], _ address: IPv6Address) -> Int {
        var best = (length: -1, value: -1)
        for entry in entries {
            let difference = entry.prefix.address.number ^ address.number
            let holds = entry.prefix.length == 0 || difference >> UInt128(128 - entry.prefix.length) == 0
            if holds && entry.prefix.length >= best.length { best = (entry.prefix.length, entry.value) }
        }
        return best.value
    }

    /// Prefixes that have to do with each other: nested, adjacent, equal, at the edges of the space.
    private static func randomEntries(_ random: inout SeededGenerator) -> [(prefix: IPv6Prefix, value: Int)] {
        var entries: [(prefix: IPv6Prefix, value: Int)] = []
        for value in 0..<Int.random(in: 1...30, using: &random) {
            let other = entries.randomElement(using: &random)?.prefix
            var address = IPv6Address(high: random.next(), low: random.next())
            var length = [0, 1, 63, 64, 65, 127, 128, Int.random(in: 0...128, using: &random)].randomElement(using: &random)!
            switch (Int.random(in: 0..<7, using: &random), other) {
            case (0, _): address = IPv6Address(number: .max)
            case (1, _): address = .unspecified
            case (2, let other?): (address, length) = (other.address, other.length)  // equal
            case (3, let other?): (address, length) = (other.address, .random(in: other.length...128, using: &random))  // nested
            case (4, let other?): (address, length) = (other.last, .random(in: other.length...128, using: &random))  // at its end
            case (5, let other?):  // adjacent
                (address, length) = (IPv6Address(number: other.last.number &+ 1), other.length)
            default: break
            }
            entries.append((IPv6Prefix(masking: address, length: length), value))
        }
        return entries
    }

    @Test(arguments: 0..<40)
    func agreesWithALinearScan(seed: Int) {
        var random = SeededGenerator(seed: UInt64(1000 + seed))
        let entries = Self.randomEntries(&random)
        let table = RouteTable(entries, fallback: -1)
        var probes: [UInt128] = [0, 1, .max, .max - 1]
        for (prefix, _) in entries {
            let (first, last) = (prefix.address.number, prefix.last.number)
            probes += [first, last, first &- 1, last &+ 1, first + (last - first) / 2]
        }
        for _ in 0..<20 { probes.append(UInt128(random.next()) << 64 | UInt128(random.next())) }
        for probe in probes {
            let address = IPv6Address(number: probe)
            let (found, expected) = (table.lookup(address), Self.scan(entries, address))
            if found != expected { Issue.record("\(address): \(found), not \(expected), in \(entries)") }
        }
    }
}
