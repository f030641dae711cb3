// Uplink: an IPv6 packet from the TUN, and the outer header it is sent behind (net/ipv6/sit.c `ipip6_tunnel_xmit`).

extension TunnelPolicy {
    /// The longest inner packet an IPv4 packet can carry.
    @usableFromInline static var longestInner: Int { 65535 - IPv4Header.minimumLength }

    /// Judges one packet, without its virtio-net header.
    @inlinable
    public func encapsulate(_ bytes: RawSpan) -> UplinkVerdict {
        guard let whole = IPv6View(bytes) else { return .drop(.uplinkShort) }
        guard whole.version == 6 else { return .drop(.uplinkNotIPv6) }
        guard let packet = whole.trimmed else { return .drop(.uplinkTruncated) }
        let innerLength = packet.bytes.byteCount
        guard innerLength <= Self.longestInner else { return .drop(.uplinkOversized) }
        if packet.isNestedTunnel { return .drop(.uplinkNestedTunnel) }

        let destination: IPv4Address
        switch peers {
        case .remote(let remote):
            destination = remote
        case .domain(let peers):
            switch nextHop(of: packet, among: peers) {
            case .send(let host): destination = host
            case .drop(let reason): return .drop(reason)
            }
        }

        let ttl: UInt8
        switch self.ttl {
        case .fixed(let value): ttl = value
        case .inherit:
            ttl = packet.hopLimit
            if ttl == 0 { return .drop(.uplinkHopLimitZero) }
        }
        let tos: UInt8
        switch self.tos {
        case .fixed(let value): tos = ECN.encapsulate(tos: value, inner: packet.trafficClass)
        case .inherit: tos = ECN.encapsulate(tos: packet.trafficClass, inner: packet.trafficClass)
        }
        return .send(OuterHeader(destination: destination, ttl: ttl, tos: tos), innerLength: innerLength)
    }

    @usableFromInline
    enum NextHop {
        case send(IPv4Address)
        case drop(DropReason)
    }

    @inlinable
    func nextHop(of packet: borrowing IPv6View, among peers: borrowing DomainPeers) -> NextHop {
        let destination = packet.destination
        let owner = peers.plan.owner(of: destination)
        // The noise that every interface makes comes first, whatever its source.
        if owner == .multicast { return .drop(.uplinkMulticastDestination) }
        if owner == .linkLocal { return .drop(.uplinkLinkLocalDestination) }
        guard peers.maySend(from: packet.source) else { return .drop(.uplinkForeignSource) }
        switch owner {
        case .embedded:
            let host = peers.domain.host(embeddedIn: destination)
            if !isPeerAddress(host) { return .drop(.uplinkMartianDestination) }
            if peers.refusesPrivate && host.isPrivateUse { return .drop(.uplinkPrivateDestination) }
            return .send(host)
        case .endpoint(let host):
            return .send(host)
        case .outside:
            if peers.relays.isEmpty { return .drop(.uplinkNoRoute) }
            let relays = peers.relays.span
            return .send(relays[FlowHash.pick(FlowHash.of(packet), of: relays.count)])
        case .local:
            return .drop(.uplinkLocalDestination)
        case .invalid, .linkLocal, .multicast:
            return .drop(.uplinkNoRoute)
        }
    }

    /// Judges a batch of packets as the TUN hands them over, each behind its virtio-net header.
    /// - Parameters:
    ///   - batch: where in `memory` they are.
    ///   - frames: takes the packets to send and those to forget; it must have room for the whole batch.
    @inlinable
    public func encapsulate(
        _ batch: borrowing FixedList<Slice>, in memory: RawSpan, into frames: inout FrameBatch, counters: inout Counters
    ) {
        for index in 0..<batch.count {
            let slice = batch[index]
            let reason: DropReason
            let read = memory.extracting(slice.range)
            if let virtio = VirtioNetView(read) {
                if virtio.isPlain {
                    switch encapsulate(read.extracting(droppingFirst: VirtioNetHeader.length)) {
                    case .send(let outer, let innerLength):
                        let payload = Slice(offset: Int(slice.offset) + VirtioNetHeader.length, length: innerLength)
                        frames.append(payload, outer: outer, innerLength: innerLength)
                        continue
                    case .drop(let refusal):
                        reason = refusal
                    }
                } else {
                    reason = .uplinkOffload
                }
            } else {
                reason = .uplinkShort
            }
            counters.count(reason)
            frames.dropped.append(slice)
        }
    }
}

extension IPv6View {
    /// Protocol 41 or 4 inside: a packet that would be encapsulated twice. Each further layer multiplies what one packet
    /// costs the hosts it bounces between (CVE-2025-23019).
    @inlinable
    var isNestedTunnel: Bool {
        switch nextHeader {
        case ProtocolNumber.tcp, ProtocolNumber.udp, ProtocolNumber.icmpv6: return false
        default:
            let upper = upperLayer.protocolNumber
            return upper == ProtocolNumber.ipv6 || upper == ProtocolNumber.ipv4
        }
    }
}
