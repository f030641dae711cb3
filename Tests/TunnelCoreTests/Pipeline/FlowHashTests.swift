import Testing
import TunnelCore

@Suite struct FlowHashTests {
    static func hash(_ packet: [UInt8]) -> UInt32 {
        guard let view = IPv6View(packet.raw) else {
            Issue.record("too short for a header")
            return 0
        }
        return FlowHash.of(view)
    }

    static func packet(
        _ flow: Flow, next: UInt8 = 6, trafficClass: UInt8 = 0, hopLimit: UInt8 = 64,
        rest: [UInt8] = Array(repeating: 0, count: 16)
    ) -> [UInt8] {
        Packets.inner(
            IPv6Address(number: flow.source).description, IPv6Address(number: flow.destination).description, next: next,
            payload: Packets.bytes(flow.sourcePort) + Packets.bytes(flow.destinationPort) + rest, trafficClass: trafficClass,
            flowLabel: flow.label, hopLimit: hopLimit)
    }

    struct Flow {
        var source = v6("2001:db8:6464:100::1").number
        var destination = v6("3fff:eee::1").number
        var sourcePort: UInt16 = 40000
        var destinationPort: UInt16 = 443
        var label: UInt32 = 0
    }

    // Everything that differs between the packets of one flow.
    @Test(arguments: [6, 17] as [UInt8])
    func allPacketsOfAFlowHashAlike(next: UInt8) {
        var random = SeededGenerator(seed: 17)
        for _ in 0..<100 {
            let flow = Flow(
                source: UInt128(random.next()) << 64 | UInt128(random.next()),
                destination: UInt128(random.next()) << 64 | UInt128(random.next()),
                sourcePort: .random(in: 0...(.max), using: &random), destinationPort: .random(in: 0...(.max), using: &random),
                label: .random(in: 0...0xFFFFF, using: &random))
            let first = Self.hash(Self.packet(flow, next: next))
            for _ in 0..<5 {
                let rest = random.bytes(Int.random(in: 4...60, using: &random))
                let other = Self.hash(
                    Self.packet(
                        flow, next: next, trafficClass: .random(in: 0...255, using: &random),
                        hopLimit: .random(in: 0...255, using: &random),
                        rest: rest))
                if other != first { Issue.record("\(flow)") }
            }
        }
    }

    // A fragment has no ports where its first one has them: they must not count in either.
    @Test func fragmentsOfADatagramHashAlike() {
        let (source, destination) = ("2001:db8:6464:100::1", "3fff:eee::1")
        let first = Packets.inner(
            source, destination, next: 44, payload: Packets.fragmentHeader(next: 17, more: true) + hex("0400003500100000"),
            flowLabel: 9)
        let later = Packets.inner(
            source, destination, next: 44,
            payload: Packets.fragmentHeader(next: 17, offset: 1, more: false) + hex("ffffffffffff"), flowLabel: 9)
        #expect(Self.hash(first) == Self.hash(later))
    }

    @Test func shortPacketsHaveAHash() {
        for count in 0..<8 {
            let packet = Packets.inner("2001:db8:6464:100::1", "3fff:eee::1", next: 6, payload: Array(repeating: 1, count: count))
            #expect(Self.hash(packet) == Self.hash(packet))
        }
    }

    // Flows as they come: one field counts up, the others stay.
    static let kinds: [(String, @Sendable (Int) -> Flow)] = [
        ("source ports", { Flow(sourcePort: UInt16($0 + 32768)) }),
        ("destination ports", { Flow(destinationPort: UInt16($0 + 1)) }),
        ("flow labels", { Flow(label: UInt32($0)) }),
        ("hosts of a subnet as sources", { Flow(source: v6("2001:db8:6464:100::").number + UInt128($0)) }),
        ("subnets as sources", { Flow(source: v6("2001:db8:6464:100::1").number + UInt128($0) << 64) }),
        ("destinations in one subnet", { Flow(destination: v6("3fff:eee::").number + UInt128($0)) }),
        ("destination networks", { Flow(destination: v6("3fff::1").number + UInt128($0) << 80) }),
        (
            "everything",
            {
                var random = SeededGenerator(seed: UInt64($0))
                return Flow(
                    source: UInt128(random.next()) << 64 | UInt128(random.next()),
                    destination: UInt128(random.next()) << 64 | UInt128(random.next()),
                    sourcePort: .random(in: 1024...(.max), using: &random))
            }
        ),
    ]

    // Chi-square with 1 to 4 degrees of freedom: 30 is exceeded by chance once in 200,000 times at most.
    @Test(arguments: kinds.indices)
    func spreadsFlowsEvenly(kind: Int) {
        let (name, flow) = Self.kinds[kind]
        let hashes = (0..<10000).map { Self.hash(Self.packet(flow($0))) }
        for count in 2...5 {
            var picked = [Int](repeating: 0, count: count)
            for hash in hashes {
                let index = FlowHash.pick(hash, of: count)
                guard picked.indices.contains(index) else {
                    Issue.record("\(index) of \(count)")
                    return
                }
                picked[index] += 1
            }
            let expected = 10000 / Double(count)
            let chiSquare = picked.reduce(0) { $0 + (Double($1) - expected) * (Double($1) - expected) / expected }
            #expect(chiSquare < 30, "\(name): \(picked)")
        }
    }

    @Test(arguments: 1...9)
    func picksInRange(count: Int) {
        var seen: Set<Int> = []
        for hash in [0, 1, .max, .max - 1] + stride(from: 0, through: UInt32.max, by: 0x0100_0001).map({ $0 }) as [UInt32] {
            let index = FlowHash.pick(hash, of: count)
            seen.insert(index)
        }
        #expect(seen == Set(0..<count))
    }
}
