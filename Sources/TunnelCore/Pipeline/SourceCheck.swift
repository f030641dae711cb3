// Who may use which inner address (RFC 5969 section 9.2, RFC 3964 section 5, and stricter where the plan knows more).

extension DomainPeers {
    /// The first rule that refuses the inner addresses of a packet that arrived from `outerSource`; nil if none does.
    @inlinable
    func refusal(of packet: borrowing IPv6View, from outerSource: IPv4Address) -> DropReason? {
        let source = packet.source
        switch plan.owner(of: source) {
        case .embedded:
            if domain.host(embeddedIn: source) != outerSource { return .downlinkInnerSourceSpoofed }
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
        case .embedded:
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
        case .embedded, .invalid, .linkLocal, .multicast: false
        }
    }
}

extension TunnelPolicy {
    /// Whether another host could have this underlay address.
    @inlinable
    func isPeerAddress(_ host: IPv4Address) -> Bool { host.isUnicastHost && host != local && host != broadcast }
}
