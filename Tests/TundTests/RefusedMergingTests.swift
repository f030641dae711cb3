import Testing

@testable import tund

@Suite struct RefusedMergingTests {
    static let second: UInt64 = 1_000_000_000
    static let start = 1000 * second

    @Test(arguments: [true, false])
    func itIsTriedAgainAfterAWhile(isTCP: Bool) {
        var refused = RefusedMerging(cutsUDP: true)
        func isRefused() -> Bool { isTCP ? refused.tcp : refused.udp }
        #expect(!refused.isTemporary && !refused.tcp && !refused.udp)
        var now = Self.start
        for _ in 0..<3 {
            let isNew = refused.add(isTCP: isTCP, at: now)
            let isNewAgain = refused.add(isTCP: isTCP, at: now + Self.second)
            #expect(isNew && !isNewAgain)
            #expect(refused.isTemporary && isRefused() && refused.tcp != refused.udp)
            refused.reconsider(at: now + 60 * Self.second - 1)
            #expect(isRefused())
            now += 60 * Self.second
            refused.reconsider(at: now)
            #expect(!refused.isTemporary && !isRefused())
        }
    }

    @Test func aKernelThatDoesNotCutUDPNeverWill() {
        var refused = RefusedMerging(cutsUDP: false)
        #expect(refused.udp && !refused.tcp && !refused.isTemporary)
        let udpIsNew = refused.add(isTCP: false, at: Self.start)
        let tcpIsNew = refused.add(isTCP: true, at: Self.start)
        #expect(!udpIsNew && tcpIsNew && refused.isTemporary)
        refused.reconsider(at: Self.start + 3600 * Self.second)
        #expect(refused.udp && !refused.tcp && !refused.isTemporary)
    }

    @Test func eachProtocolHasItsTime() {
        var refused = RefusedMerging(cutsUDP: true)
        _ = refused.add(isTCP: true, at: Self.start)
        _ = refused.add(isTCP: false, at: Self.start + 30 * Self.second)
        refused.reconsider(at: Self.start + 60 * Self.second)
        #expect(!refused.tcp && refused.udp)
        refused.reconsider(at: Self.start + 90 * Self.second)
        #expect(!refused.udp)
    }
}
