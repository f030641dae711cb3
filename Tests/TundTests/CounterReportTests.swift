import RingIO
import Testing
import TunnelCore

@testable import tund

@Suite struct CounterReportTests {
    @Test func addsUpWorkersAndShowsDropsOnlyWhereThereAreSome() {
        var first = Counters()
        first.uplinkPackets = 2
        first.uplinkBytes = 200
        first.count(.downlinkECN)
        first.packetTooBigs = 3
        first.heldBackErrors = 1
        var second = Counters()
        second.uplinkPackets = 1
        second.downlinkBytes = 7
        second.count(.downlinkECN)
        let icmp = [ICMPKind(type: 3, code: 2): UInt64(4)]
        #expect(
            CounterReport([first, second], [ErrorTable()], icmp: icmp).lines == [
                "counter uplink.packets 3",
                "counter uplink.bytes 200",
                "counter downlink.packets 0",
                "counter downlink.bytes 7",
                "counter answer.too-big 3",
                "counter answer.held-back 1",
                "drop downlink.ecn 2 # congestion was marked on a packet that cannot carry the mark (RFC 6040)",
                "error icmp.3/2 4 # ICMP protocol unreachable: nobody takes protocol 41 there",
            ])
    }

    @Test func aPageKeepsEveryField() {
        var counters = Counters()
        for index in 0..<Counters.fieldCount { counters[field: index] = UInt64(index + 1) }
        let page = CounterPage()
        page.publish(counters)
        let copy = page.read()
        for index in 0..<Counters.fieldCount { #expect(copy[field: index] == UInt64(index + 1)) }
    }
}
