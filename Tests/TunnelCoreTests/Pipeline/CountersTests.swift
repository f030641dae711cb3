import Testing
import TunnelCore

@Suite struct CountersTests {
    @Test func beginAtZero() {
        let counters = Counters()
        #expect(Counters.fieldCount == 13 + DropReason.allCases.count)
        for field in 0..<Counters.fieldCount { #expect(counters[field: field] == 0) }
    }

    @Test(arguments: DropReason.allCases)
    func eachReasonHasItsOwn(reason: DropReason) {
        var counters = Counters()
        counters.count(reason)
        counters.count(reason)
        for other in DropReason.allCases { #expect(counters[other] == (other == reason ? 2 : 0)) }
        for field in 0..<Counters.fieldCount { #expect(counters[field: field] == (field == 13 + Int(reason.rawValue) ? 2 : 0)) }
    }

    @Test func fieldsAreTheTotalsThenTheDrops() {
        var counters = Counters()
        for field in 0..<Counters.fieldCount { counters[field: field] = UInt64(100 + field) }
        #expect(counters.uplinkPackets == 100 && counters.uplinkBytes == 101)
        #expect(counters.downlinkPackets == 102 && counters.downlinkBytes == 103)
        #expect(counters.splitPackets == 104 && counters.mergedPackets == 105 && counters.refusedMerges == 106)
        #expect(counters.packetTooBigs == 107 && counters.unreachables == 108)
        #expect(counters.timeExceededs == 109 && counters.heldBackErrors == 110)
        #expect(counters.tcpMergingPauses == 111 && counters.udpMergingPauses == 112)
        for reason in DropReason.allCases { #expect(counters[reason] == 113 + UInt64(reason.rawValue)) }
        for field in 0..<Counters.fieldCount { #expect(counters[field: field] == UInt64(100 + field)) }
    }
}
