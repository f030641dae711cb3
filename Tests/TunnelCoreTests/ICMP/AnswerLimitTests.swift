import Testing

@testable import TunnelCore

@Suite struct AnswerLimitTests {
    static let second: UInt64 = 1_000_000_000
    static let (a, b) = (v4("10.0.0.1"), v4("10.0.0.2"))

    static func limit() -> AnswerLimit {
        AnswerLimit(perPeer: .init(perSecond: 10, burst: 6), all: .init(perSecond: 1000, burst: 20))
    }

    /// How many of `tries` at one moment are allowed.
    static func allowed(_ limit: inout AnswerLimit, _ peer: IPv4Address, _ tries: Int, at now: UInt64) -> Int {
        (0..<tries).count { _ in limit.allows(peer, at: now) }
    }

    // A machine may just have started.
    @Test(arguments: [0, 1, 12345 * second]) func aBurstAndThenARate(start: UInt64) {
        var limit = Self.limit()
        #expect(Self.allowed(&limit, Self.a, 100, at: start) == 6)
        #expect(Self.allowed(&limit, Self.a, 100, at: start + Self.second / 10 - 1) == 0)
        #expect(Self.allowed(&limit, Self.a, 100, at: start + Self.second / 10) == 1)
        #expect(Self.allowed(&limit, Self.a, 100, at: start + Self.second / 2) == 4)
        // A full bucket holds no more, however long nobody took anything.
        #expect(Self.allowed(&limit, Self.a, 100, at: start + 3600 * Self.second) == 6)
    }

    @Test func aPeerTakesNothingFromAnother() {
        var limit = Self.limit()
        #expect(Self.allowed(&limit, Self.a, 100, at: 0) == 6)
        #expect(Self.allowed(&limit, Self.b, 100, at: 0) == 6)
    }

    @Test func allTogether() {
        var limit = Self.limit()
        let peers = (0..<100).map { IPv4Address(rawValue: 0x0A00_0000 + $0) }
        let first = peers.reduce(0) { $0 + Self.allowed(&limit, $1, 1, at: 0) }
        #expect(first == 20)
        // Who was refused for the others' sake has lost nothing.
        let later = peers.reduce(0) { $0 + Self.allowed(&limit, $1, 1, at: Self.second / 100) }
        #expect(later == 10)
    }

    /// Neighbours in the address space hardly share a bucket.
    @Test func peersAreSpread() {
        var limit = AnswerLimit(perPeer: .init(perSecond: 1, burst: 1), all: .init(perSecond: 1000, burst: 1000))
        let count = (0..<128).count { limit.allows(IPv4Address(rawValue: 0x0A00_0000 + $0), at: 0) }
        #expect(count > 100)
    }
}
