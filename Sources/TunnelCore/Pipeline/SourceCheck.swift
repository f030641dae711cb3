// Who may use which address.

/// How much is checked; what a level takes, the next one takes, too. What keeps packets well formed is no part of it, nor is whom
/// a tunnel talks to: point to point only the remote is heard, as sit's device lookup has it.
public enum SourceCheck: String, Hashable, Sendable, CaseIterable {
    /// RFC 5969 section 9.2, RFC 3964 section 5, and stricter where the plan knows more.
    case strict
    /// net/ipv6/sit.c `packet_is_spoofed`: embedded addresses of the domain, on the downlink.
    case sit
    case off
}

extension TunnelPolicy {
    /// The first strict rule that refuses a packet that arrived from `outerSource`; nil if none does.
    @inlinable
    func refusal(
        of packet: borrowing IPv6View, from outerSource: IPv4Address, among peers: borrowing DomainPeers
    ) -> DropReason? {
        if !isPeerAddress(outerSource) { return .downlinkOuterSourceMartian }
        if !peers.knows(outerSource) { return .downlinkOuterSourceUnknown }
        if packet.isNestedTunnel { return .downlinkNestedTunnel }
        return peers.refusal(of: packet, from: outerSource)
    }

    /// The same for a level that is not strict, asked about what the strict rules refuse. sit looks where an inner address embeds
    /// an IPv4 address: it has to be the outer header's. Addresses outside the domain are anybody's.
    @inline(never) @usableFromInline
    func lenientRefusal(of packet: borrowing IPv6View, from outerSource: IPv4Address) -> DropReason? {
        guard sourceCheck == .sit, case .domain(let peers) = peers else { return nil }
        let (source, destination) = (packet.source, packet.destination)
        if peers.domain.contains(source) && peers.domain.host(embeddedIn: source) != outerSource {
            return .downlinkInnerSourceSpoofed
        }
        if !peers.domain.contains(destination) || peers.domain.host(embeddedIn: destination) == local { return nil }
        // `only_dnatted`: somebody translated the outer destination on the way, and the inner one is ours all the same.
        return peers.plan.owner(of: destination) == .local ? nil : .downlinkInnerDestinationForeign
    }

    /// Whether another host could have this underlay address.
    @inlinable
    func isPeerAddress(_ host: IPv4Address) -> Bool { host.isUnicastHost && host != local && host != broadcast }
}

extension DomainPeers {
    /// The strict rules for inner addresses.
    @inlinable
    func refusal(of packet: borrowing IPv6View, from outerSource: IPv4Address) -> DropReason? {
        let source = packet.source
        switch plan.owner(of: source) {
        case .embedded:
            if domain.host(embeddedIn: source) != outerSource { return .downlinkInnerSourceSpoofed }
        case .trailing:
            if source.trailingHost != outerSource { return .downlinkInnerSourceSpoofed }
        case .endpoint(let endpoint):
            // Outside the domain a relay may stand between us and the endpoint's network.
            if endpoint != outerSource && (domain.contains(source) || !isRelay(outerSource)) {
                return .downlinkInnerSourceUnauthorized
            }
        case .outside:
            if !isRelay(outerSource) { return .downlinkInnerSourceUnauthorized }
        case .local:
            return .downlinkInnerSourceSpoofed
        case .invalid, .linkLocal, .multicast:
            return .downlinkInnerSourceInvalid
        }
        let destination = packet.destination
        switch plan.owner(of: destination) {
        case .local:
            return nil
        case .outside, .endpoint:
            return isBorderRelay && !domain.contains(destination) ? nil : .downlinkInnerDestinationForeign
        case .embedded, .trailing:
            // Never back into the domain: that would let one host reach another through us (RFC 6324).
            return .downlinkInnerDestinationForeign
        case .invalid, .linkLocal, .multicast:
            return .downlinkInnerDestinationInvalid
        }
    }

    /// Whether a packet from the TUN may carry this source.
    @inlinable
    func maySend(from source: IPv6Address) -> Bool {
        switch plan.owner(of: source) {
        case .local: true
        case .outside, .endpoint: isBorderRelay && !domain.contains(source)
        case .embedded, .trailing, .invalid, .linkLocal, .multicast: false
        }
    }
}
