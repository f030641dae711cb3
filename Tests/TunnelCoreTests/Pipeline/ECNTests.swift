import Testing
import TunnelCore

@Suite struct ECNTests {
    // The codepoints as they stand in the byte: Not-ECT 0, ECT(1) 1, ECT(0) 2, CE 3 (RFC 3168 section 5).
    @Test(arguments: [(0, ECN.notECT), (1, .ect1), (2, .ect0), (3, .ce)] as [(UInt8, ECN)])
    func codepoints(bits: UInt8, codepoint: ECN) {
        #expect(codepoint.rawValue == bits)
        for dscp in stride(from: 0, through: 0xFC, by: 4) {
            let read = ECN(trafficClass: UInt8(dscp) | bits)
            #expect(read == codepoint)
        }
    }

    // INET_ECN_encapsulate: the inner codepoint, but CE as ECT(0). RFC 6040 figure 3, normal mode: the inner codepoint. Whatever the
    // TOS byte's own two bits say.
    @Test(arguments: [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 2, 3)] as [(UInt8, UInt8, UInt8)], 0...3 as ClosedRange<UInt8>)
    func encapsulates(vector: (inner: UInt8, sit: UInt8, rfc6040: UInt8), configured: UInt8) {
        for dscp in stride(from: 0, through: 0xFC, by: 4).map({ UInt8($0) }) {
            for innerDSCP in [0x00, 0xB8, 0xFC] as [UInt8] {
                for (rule, expected) in [(ECN.Encapsulation.sit, vector.sit), (.rfc6040, vector.rfc6040)] {
                    let outer = ECN.encapsulate(tos: dscp | configured, inner: innerDSCP | vector.inner, by: rule)
                    if outer != dscp | expected { Issue.record("\(dscp | configured), \(innerDSCP | vector.inner): \(outer)") }
                }
            }
        }
    }

    // The 4 x 4 table, over every DSCP inside and three outside: the inner one stays.
    @Test(arguments: DecapsulateTests.ecnTable)
    func decapsulates(inner: UInt8, outer: UInt8, result: UInt8?) {
        for dscp in stride(from: 0, through: 0xFC, by: 4).map({ UInt8($0) }) {
            for outerDSCP in [0x00, 0xB8, 0xFC] as [UInt8] {
                let trafficClass = ECN.decapsulate(outer: outerDSCP | outer, inner: dscp | inner)
                if trafficClass != result.map({ dscp | $0 }) {
                    Issue.record("inner \(dscp | inner), outer \(outerDSCP | outer): \(String(describing: trafficClass))")
                }
            }
        }
    }
}
