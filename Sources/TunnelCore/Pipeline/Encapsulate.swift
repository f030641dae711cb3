// Uplink: an IPv6 packet from the TUN, and the outer header it is sent behind (net/ipv6/sit.c `ipip6_tunnel_xmit`).

extension TunnelPolicy {
    /// The longest inner packet an IPv4 packet can carry.
    @usableFromInline static var longestInner: Int { 65535 - IPv4Header.minimumLength }

    /// Judges one packet, without its virtio-net header.
    /// - Parameter isSuperPacket: it will be cut into segments, so it may be longer than a packet can be.
    @inlinable
    public func encapsulate(_ bytes: RawSpan, isSuperPacket: Bool = false) -> UplinkVerdict {
        guard let whole = IPv6View(bytes), whole.version == 6, mode.carriesIPv6 else {
            return encapsulateOther(bytes, isSuperPacket: isSuperPacket)
        }
        guard let packet = whole.trimmed else { return .drop(.uplinkTruncated) }
        let innerLength = packet.bytes.byteCount
        guard isSuperPacket || innerLength <= Self.longestInner else { return .drop(.uplinkOversized) }
        if packet.isNestedTunnel && sourceCheck == .strict { return .drop(.uplinkNestedTunnel) }

        let destination: IPv4Address
        switch nextHop(of: packet) {
        case .send(let host): destination = host
        case .drop(let reason): return .drop(reason)
        }

        guard let (ttl, tos) = outerFields(hopLimit: packet.hopLimit, trafficClass: packet.trafficClass) else {
            return .drop(.uplinkHopLimitZero)
        }
        return .send(
            OuterHeader(destination: destination, ttl: ttl, tos: tos, dontFragment: dontFragment), innerLength: innerLength)
    }

    /// TTL and TOS for an inner packet; nil if it has no TTL to inherit.
    @inlinable
    func outerFields(hopLimit: UInt8, trafficClass: UInt8) -> (ttl: UInt8, tos: UInt8)? {
        let ttl: UInt8
        switch self.ttl {
        case .fixed(let value): ttl = value
        case .inherit:
            if hopLimit == 0 { return nil }
            ttl = hopLimit
        }
        switch tos {
        case .fixed(let value): return (ttl, ECN.encapsulate(tos: value, inner: trafficClass, by: ecn))
        case .inherit: return (ttl, ECN.encapsulate(tos: trafficClass, inner: trafficClass, by: ecn))
        }
    }

    @usableFromInline
    enum NextHop {
        case send(IPv4Address)
        case drop(DropReason)
    }

    /// Of a packet of which the headers are enough.
    @inlinable
    func nextHop(of packet: borrowing IPv6View) -> NextHop {
        switch peers {
        case .remote(let remote):
            return .send(remote)
        case .domain(let peers):
            let strict = nextHop(of: packet, among: peers)
            if case .drop = strict, sourceCheck != .strict { return nextHopOfSit(of: packet) }
            return strict
        case .isatap(let peers):
            return nextHop(of: packet, among: peers)
        }
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
            return toEmbedded(peers.domain.host(embeddedIn: destination), among: peers)
        case .trailing:
            return toEmbedded(destination.trailingHost, among: peers)
        case .endpoint(let host):
            return .send(host)
        case .outside:
            return relay(for: packet, among: peers)
        case .local:
            return .drop(.uplinkLocalDestination)
        case .invalid, .linkLocal, .multicast:
            return .drop(.uplinkNoRoute)
        }
    }

    /// To a host that an address embeds, if it can be one.
    @inlinable
    func toEmbedded(_ host: IPv4Address, among peers: borrowing DomainPeers) -> NextHop {
        if !isPeerAddress(host) { return .drop(.uplinkMartianDestination) }
        if peers.refusesPrivate && host.isPrivateUse { return .drop(.uplinkPrivateDestination) }
        return .send(host)
    }

    /// The way out of the domain.
    @inlinable
    func relay(for packet: borrowing IPv6View, among peers: borrowing DomainPeers) -> NextHop {
        if peers.relays.isEmpty { return .drop(.uplinkNoRoute) }
        let relays = peers.relays.span
        return .send(relays[FlowHash.pick(FlowHash.of(packet), of: relays.count)])
    }

    /// As sit finds it: any source, and any embedded address that the kernel has a way to.
    @inline(never) @usableFromInline
    func nextHopOfSit(of packet: borrowing IPv6View) -> NextHop {
        guard case .domain(let peers) = peers else { return .drop(.uplinkNoRoute) }
        let destination = packet.destination
        let owner = peers.plan.owner(of: destination)
        if case .endpoint(let host) = owner { return .send(host) }
        if peers.domain.contains(destination) {
            let host = peers.domain.host(embeddedIn: destination)
            // A raw socket would send to a group; what else is no unicast route, the kernel refuses there, too.
            if host.isMulticast { return .drop(.uplinkMartianDestination) }
            // 0.0.0.0 is no answer: the next hop decides.
            if host != .any { return .send(host) }
        }
        switch owner {
        case .trailing:
            let host = destination.trailingHost
            return host.isMulticast ? .drop(.uplinkMartianDestination) : .send(host)
        case .multicast: return .drop(.uplinkMulticastDestination)
        case .linkLocal: return .drop(.uplinkLinkLocalDestination)
        case .invalid: return .drop(.uplinkNoRoute)
        case .embedded, .endpoint, .outside, .local: return relay(for: packet, among: peers)
        }
    }

    /// Judges a batch of packets as the TUN hands them over, each behind its virtio-net header; cuts super-packets and finishes
    /// checksums.
    /// - Parameters:
    ///   - batch: where in `memory` they are; packets before `next` are done already.
    ///   - next: the first packet that is not done yet: the batch's count, unless `frames` had no room for all.
    ///   - frames: takes the packets to send and those to forget.
    @_lifetime(memory: copy memory)
    public func encapsulate(
        _ batch: borrowing FixedList<Slice>, from next: inout Int, in memory: inout MutableRawSpan,
        into frames: inout FrameBatch, counters: inout Counters
    ) {
        while next < batch.count {
            let slice = batch[next]
            guard frames.hasRoom(frames: 1, scratch: 0) else { return }
            switch judge(memory.bytes.extracting(slice.range)) {
            case .whole(let outer, let innerLength):
                let packet = Slice(offset: Int(slice.offset) + VirtioNetHeader.length, length: innerLength)
                mssClamp.apply(to: packet, in: &memory, isUnfinished: false)
                frames.append(packet, outer: outer, innerLength: innerLength)
            case .split(let outer, let innerLength, let split):
                guard frames.couldHold(frames: split.segmentCount, scratch: split.scratchLength) else {
                    counters.count(.uplinkOffload)
                    frames.dropped.append(slice)
                    break
                }
                guard frames.hasRoom(frames: split.segmentCount, scratch: split.scratchLength) else { return }
                let packet = Slice(offset: Int(slice.offset) + VirtioNetHeader.length, length: innerLength)
                mssClamp.apply(to: packet, in: &memory, isUnfinished: true)
                split.emit(packet, outer: outer, in: &memory, into: &frames)
                if split.segmentCount > 1 { counters.splitPackets &+= 1 }
            case .drop(let reason):
                counters.count(reason)
                frames.dropped.append(slice)
            }
            next &+= 1
        }
    }

    private enum UplinkWork {
        case whole(OuterHeader, innerLength: Int)
        case split(OuterHeader, innerLength: Int, SegmentationSplit)
        case drop(DropReason)
    }

    /// Judges what was read from the TUN, virtio-net header first.
    private func judge(_ read: RawSpan) -> UplinkWork {
        guard let virtio = VirtioNetView(read) else { return .drop(.uplinkShort) }
        let bytes = read.extracting(droppingFirst: VirtioNetHeader.length)
        switch encapsulate(bytes, isSuperPacket: virtio.segmentation != .none) {
        case .drop(let reason):
            return .drop(reason)
        case .send(let outer, let innerLength):
            if virtio.asksForNothing { return .whole(outer, innerLength: innerLength) }
            guard let split = SegmentationSplit(bytes.extracting(first: innerLength), virtio) else {
                return .drop(.uplinkOffload)
            }
            if split.longestSegment > Self.longestInner { return .drop(.uplinkOversized) }
            return .split(outer, innerLength: innerLength, split)
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
