// IPv4 in IPv4 (RFC 2003), point to point: modes ipip and any (net/ipv6/sit.c `sit_tunnel_xmit`, `ipip_rcv`; net/ipv4/ip_tunnel.c
// `ip_tunnel_xmit`, `ip_tunnel_rcv`).

extension TunnelPolicy {
    /// Judges a packet from the TUN that is not IPv6, or no IPv6 that this mode carries.
    @usableFromInline
    func encapsulateOther(_ bytes: RawSpan, isSuperPacket: Bool) -> UplinkVerdict {
        guard bytes.byteCount >= (mode.carriesIPv4 ? IPv4Header.minimumLength : IPv6Header.length) else {
            return .drop(.uplinkShort)
        }
        let version = bytes.byte(at: 0) >> 4
        guard version == 4, case .remote(let remote) = peers, mode.carriesIPv4 else {
            return .drop(!mode.carriesIPv6 ? .uplinkNotIPv4 : version == 6 ? .uplinkShort : .uplinkNotIPv6)
        }
        guard let packet = IPv4View(bytes)?.trimmed else { return .drop(.uplinkTruncated) }
        let innerLength = packet.bytes.byteCount
        guard isSuperPacket || innerLength <= Self.longestInner else { return .drop(.uplinkOversized) }
        if packet.isNestedTunnel && sourceCheck == .strict { return .drop(.uplinkNestedTunnel) }
        guard let (ttl, tos) = outerFields(hopLimit: packet.ttl, trafficClass: packet.typeOfService) else {
            return .drop(.uplinkHopLimitZero)
        }
        return .send(
            OuterHeader(
                destination: remote, ttl: ttl, tos: tos, protocolNumber: ProtocolNumber.ipv4,
                dontFragment: dontFragment || packet.dontFragment),
            innerLength: innerLength)
    }

    /// Judges a packet of protocol 4 from the underlay.
    @usableFromInline
    func decapsulateIPv4(_ outer: borrowing IPv4View) -> DownlinkVerdict {
        let bytes = outer.bytes.extracting(droppingFirst: outer.headerLength)
        guard bytes.byteCount >= IPv4Header.minimumLength else { return .drop(.downlinkShort) }
        guard outer.destination == local else { return .drop(.downlinkOuterDestination) }
        guard bytes.byte(at: 0) >> 4 == 4 else { return .drop(.downlinkNotIPv4) }
        guard let packet = IPv4View(bytes)?.trimmed else { return .drop(.downlinkTruncated) }
        guard mode.carriesIPv4, case .remote(let remote) = peers, outer.source == remote else {
            return .drop(.downlinkOuterSourceUnknown)
        }
        if sourceCheck == .strict {
            if packet.isNestedTunnel { return .drop(.downlinkNestedTunnel) }
            if !packet.source.isUnicastHost { return .drop(.downlinkInnerSourceInvalid) }
        }
        guard let typeOfService = ECN.decapsulate(outer: outer.typeOfService, inner: packet.typeOfService) else {
            return .drop(.downlinkECN)
        }
        return .deliver(
            Delivery(
                innerOffset: outer.headerLength, innerLength: packet.bytes.byteCount, trafficClass: typeOfService, isIPv4: true))
    }
}

extension IPv4View {
    /// As with IPv6 inside.
    var isNestedTunnel: Bool { protocolNumber == ProtocolNumber.ipv4 || protocolNumber == ProtocolNumber.ipv6 }
}
