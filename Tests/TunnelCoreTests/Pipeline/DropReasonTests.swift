import Testing
import TunnelCore

@Suite struct DropReasonTests {
    // Names never change: scripts and dashboards read them.
    static let names = [
        "uplink.short", "uplink.not-ipv6", "uplink.not-ipv4", "uplink.truncated", "uplink.oversized", "uplink.offload",
        "uplink.nested-tunnel",
        "uplink.multicast-destination", "uplink.link-local-destination", "uplink.foreign-source", "uplink.local-destination",
        "uplink.no-route", "uplink.martian-destination", "uplink.private-destination", "uplink.hop-limit-zero",
        "uplink.too-big", "uplink.narrow-path",
        "downlink.short", "downlink.outer-header", "downlink.outer-destination", "downlink.not-ipv6", "downlink.not-ipv4",
        "downlink.truncated",
        "downlink.nested-tunnel", "downlink.outer-source-martian", "downlink.outer-source-unknown",
        "downlink.inner-source-invalid",
        "downlink.inner-source-spoofed", "downlink.inner-source-unauthorized", "downlink.inner-destination-invalid",
        "downlink.inner-destination-foreign", "downlink.ecn", "downlink.unfinished-oversized",
    ]

    @Test func theNamesAreTheDocumentedOnes() {
        #expect(Set(DropReason.allCases.map(\.name)) == Set(Self.names))
        #expect(DropReason.allCases.count == Self.names.count)
    }

    @Test func noNameIsUsedTwice() {
        #expect(Set(DropReason.allCases.map(\.name)).count == DropReason.allCases.count)
    }

    @Test(arguments: DropReason.allCases)
    func namesHaveOneForm(reason: DropReason) {
        let parts = reason.name.split(separator: ".", omittingEmptySubsequences: false)
        #expect(parts.count == 2)
        #expect(parts.first == (String(describing: reason).hasPrefix("uplink") ? "uplink" : "downlink"))
        let words = parts.last!.split(separator: "-", omittingEmptySubsequences: false)
        #expect(words.allSatisfy { !$0.isEmpty && $0.allSatisfy { "abcdefghijklmnopqrstuvwxyz0123456789".contains($0) } })
        // One line of text for "drop NAME COUNT # TEXT".
        #expect(!reason.text.isEmpty && !reason.text.contains { $0.isNewline })
    }

    @Test func rawValuesCountFrom0() {
        #expect(DropReason.allCases.map(\.rawValue) == Array(0..<UInt8(DropReason.allCases.count)))
    }
}
