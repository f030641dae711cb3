import Glibc
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
                "sit rx_packets 0", "sit rx_bytes 7", "sit rx_errors 2", "sit rx_frame_errors 2", "sit tx_packets 3",
                "sit tx_bytes 200", "sit tx_errors 0", "sit tx_dropped 0", "sit tx_carrier_errors 0", "sit collisions 0",
            ])
    }

    /// The counters of a sit interface that one drop raises (sit.c `ipip6_rcv`, `ipip6_tunnel_xmit`).
    @Test(arguments: [
        (DropReason.downlinkECN, ["rx_errors", "rx_frame_errors"]),
        (.downlinkInnerSourceSpoofed, ["rx_errors"]),
        (.downlinkInnerDestinationForeign, ["rx_errors"]),
        (.downlinkShort, []),
        (.downlinkOuterSourceUnknown, []),
        (.uplinkNoRoute, ["tx_errors"]),
        (.uplinkMulticastDestination, ["tx_errors"]),
        (.uplinkTooBig, ["tx_errors"]),
        (.uplinkNarrowPath, ["tx_errors", "collisions"]),
        (.uplinkMartianDestination, ["tx_errors", "tx_carrier_errors"]),
        (.uplinkForeignSource, []),
    ])
    func countsADropAsSitDoes(reason: DropReason, names: [String]) {
        var counters = Counters()
        counters.count(reason)
        let raised = CounterReport([counters], []).sit.filter { $0.value == 1 }.map(\.counter.rawValue)
        #expect(raised == names)
    }

    @Test(arguments: [
        (PacketOperation.underlaySend, ENETUNREACH, [SitCounter.sendErrors, .sendCarrierErrors]),
        (.underlaySend, EHOSTUNREACH, [.sendErrors, .sendCarrierErrors]),
        (.underlaySend, ENOBUFS, [.sendDropped]),
        (.underlaySend, EPERM, [.sendDropped]),
        (.underlaySend, EMSGSIZE, []),
        (.tunWrite, ENOBUFS, []),
    ])
    func countsAnErrorAsSitDoes(operation: PacketOperation, code: Int32, counters: [SitCounter]) {
        #expect(SitCounter.counters(of: operation, code: code) == counters)
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
