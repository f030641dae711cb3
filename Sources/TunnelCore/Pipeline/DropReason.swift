/// Why a packet went no further. One table: the counters, the command line's names, the log and the tests all come from it.
/// Nothing is ever sent back for a packet from the underlay (RFC 4213 section 3.6; a reply would make the host a reflector).
public enum DropReason: UInt8, CaseIterable, Sendable {
    // Uplink, in the order of the checks.
    case uplinkShort
    case uplinkNotIPv6
    case uplinkNotIPv4
    case uplinkTruncated
    case uplinkOversized
    case uplinkOffload
    case uplinkNestedTunnel
    case uplinkMulticastDestination
    case uplinkLinkLocalDestination
    case uplinkForeignSource
    case uplinkLocalDestination
    case uplinkNoRoute
    case uplinkMartianDestination
    case uplinkPrivateDestination
    case uplinkHopLimitZero
    case uplinkTooBig
    case uplinkNarrowPath
    // Downlink, in the order of the checks.
    case downlinkShort
    case downlinkOuterHeader
    case downlinkOuterDestination
    case downlinkNotIPv6
    case downlinkNotIPv4
    case downlinkTruncated
    case downlinkOuterSourceMartian
    case downlinkOuterSourceUnknown
    case downlinkNestedTunnel
    case downlinkInnerSourceInvalid
    case downlinkInnerSourceSpoofed
    case downlinkInnerSourceUnauthorized
    case downlinkInnerDestinationInvalid
    case downlinkInnerDestinationForeign
    case downlinkECN
    case downlinkUnfinishedOversized

    /// `allCases.count`, without making the array.
    @inlinable public static var count: Int { Int(DropReason.downlinkUnfinishedOversized.rawValue) + 1 }

    /// How it is shown: `uplink.` or `downlink.` and a name that never changes, and what it means.
    public var entry: (name: StaticString, text: StaticString) {
        switch self {
        case .uplinkShort: ("uplink.short", "shorter than its IP header")
        case .uplinkNotIPv6: ("uplink.not-ipv6", "the TUN handed over something that is not IPv6")
        case .uplinkNotIPv4: ("uplink.not-ipv4", "the TUN handed over something that is not IPv4, which alone mode ipip carries")
        case .uplinkTruncated: ("uplink.truncated", "its lengths and the packet's end contradict each other")
        case .uplinkOversized: ("uplink.oversized", "too long for an IPv4 packet")
        case .uplinkOffload: ("uplink.offload", "a checksum or segmentation request that makes no sense")
        case .uplinkNestedTunnel: ("uplink.nested-tunnel", "carries protocol 41 or 4: a tunnel in the tunnel")
        case .uplinkMulticastDestination: ("uplink.multicast-destination", "multicast has no embedded host")
        case .uplinkLinkLocalDestination: ("uplink.link-local-destination", "link-local addresses have no embedded host")
        case .uplinkForeignSource: ("uplink.foreign-source", "inner source is not in this host's prefixes")
        case .uplinkLocalDestination:
            ("uplink.local-destination", "inner destination is in this host's own prefixes but no route took it")
        case .uplinkNoRoute: ("uplink.no-route", "outside the domain, and no relay or route is configured")
        case .uplinkMartianDestination: ("uplink.martian-destination", "the embedded IPv4 address is not a host's")
        case .uplinkPrivateDestination:
            ("uplink.private-destination", "a private IPv4 address embedded in 6to4, seen from a public one")
        case .uplinkHopLimitZero: ("uplink.hop-limit-zero", "no TTL to inherit")
        case .uplinkTooBig: ("uplink.too-big", "longer than the path takes: its source is told")
        case .uplinkNarrowPath: ("uplink.narrow-path", "the path takes less than the least IPv4 packets")
        case .downlinkShort: ("downlink.short", "shorter than an inner IP header")
        case .downlinkOuterHeader: ("downlink.outer-header", "bad IPv4 header")
        case .downlinkOuterDestination: ("downlink.outer-destination", "not sent to this tunnel's address")
        case .downlinkNotIPv6: ("downlink.not-ipv6", "the inner version is not 6")
        case .downlinkNotIPv4: ("downlink.not-ipv4", "protocol 4, but the inner version is not 4")
        case .downlinkTruncated: ("downlink.truncated", "the inner lengths and the packet's end contradict each other")
        case .downlinkOuterSourceMartian: ("downlink.outer-source-martian", "outer source is not another host's address")
        case .downlinkOuterSourceUnknown:
            ("downlink.outer-source-unknown", "outer source is neither in the domain nor a relay or endpoint")
        case .downlinkNestedTunnel: ("downlink.nested-tunnel", "carries protocol 41 or 4: a tunnel in the tunnel")
        case .downlinkInnerSourceInvalid:
            ("downlink.inner-source-invalid", "inner source is not an address of one host that may cross a tunnel")
        case .downlinkInnerSourceSpoofed:
            ("downlink.inner-source-spoofed", "inner source belongs to another host than the outer source")
        case .downlinkInnerSourceUnauthorized:
            ("downlink.inner-source-unauthorized", "inner source is outside the domain and the outer source may not relay it")
        case .downlinkInnerDestinationInvalid:
            ("downlink.inner-destination-invalid", "inner destination is not a global unicast address")
        case .downlinkInnerDestinationForeign:
            ("downlink.inner-destination-foreign", "inner destination is not in this host's prefixes")
        case .downlinkECN: ("downlink.ecn", "congestion was marked on a packet that cannot carry the mark (RFC 6040)")
        case .downlinkUnfinishedOversized:
            (
                "downlink.unfinished-oversized",
                "merged on arrival, of unknown segment size: start with CAP_BPF, or ethtool -K IFACE gro off"
            )
        }
    }

    public var name: String { "\(entry.name)" }
    public var text: String { "\(entry.text)" }
}
