internal import Glibc
internal import RingIO
internal import TunnelCore

/// The counters of a kernel's sit interface (`ip -s -s link`, /sys/class/net/*/statistics), for those who watched them before.
enum SitCounter: String, CaseIterable {
    case receivedPackets = "rx_packets"
    case receivedBytes = "rx_bytes"
    case receiveErrors = "rx_errors"
    case receiveFrameErrors = "rx_frame_errors"
    case sentPackets = "tx_packets"
    case sentBytes = "tx_bytes"
    case sendErrors = "tx_errors"
    case sendDropped = "tx_dropped"
    case sendCarrierErrors = "tx_carrier_errors"
    case collisions
}

extension SitCounter {
    /// Where sit would count a packet that is dropped for this reason (net/ipv6/sit.c `ipip6_rcv`, `ipip6_tunnel_xmit`). What it
    /// does not count, or has no such check for, is nowhere here. A check of its own that is stricter in tund is the same check.
    static func counters(of reason: DropReason) -> [SitCounter] {
        switch reason {
        case .downlinkECN: [.receiveErrors, .receiveFrameErrors]
        // packet_is_spoofed()
        case .downlinkInnerSourceInvalid, .downlinkInnerSourceSpoofed, .downlinkInnerSourceUnauthorized,
            .downlinkInnerDestinationInvalid, .downlinkInnerDestinationForeign:
            [.receiveErrors]
        // Nothing to send, or nobody to send it to.
        case .uplinkShort, .uplinkNotIPv6, .uplinkNotIPv4, .uplinkMulticastDestination, .uplinkLinkLocalDestination,
            .uplinkNoRoute:
            [.sendErrors]
        case .uplinkTooBig, .uplinkOversized: [.sendErrors]
        // The route to it is not of type unicast.
        case .uplinkMartianDestination: [.sendErrors, .sendCarrierErrors]
        case .uplinkNarrowPath: [.sendErrors, .collisions]
        default: []
        }
    }

    /// The same for a packet that the kernel refused to send.
    static func counters(of operation: PacketOperation, code: Int32) -> [SitCounter] {
        switch (operation, code) {
        case (.underlaySend, ENETUNREACH), (.underlaySend, EHOSTUNREACH), (.underlaySend, EACCES), (.underlaySend, EINVAL):
            [.sendErrors, .sendCarrierErrors]
        // A queueing discipline, netfilter, or no memory (iptunnel_xmit()).
        case (.underlaySend, ENOBUFS), (.underlaySend, EPERM), (.underlaySend, ENOMEM): [.sendDropped]
        // EMSGSIZE is a drop reason, or no loss at all.
        default: []
        }
    }
}
