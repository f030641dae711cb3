// Downlink: a protocol-41 packet from the underlay, and the IPv6 packet in it (net/ipv6/sit.c `ipip6_rcv`).

extension TunnelPolicy {
    /// Judges one packet, from the first byte of its IPv4 header.
    @inlinable
    public func decapsulate(_ bytes: RawSpan) -> DownlinkVerdict {
        // The kernel checked version, length and checksum before the socket saw the packet, and reassembled fragments.
        guard let outer = IPv4View(bytes) else { return .drop(.downlinkOuterHeader) }
        if outer.protocolNumber == ProtocolNumber.ipv4 { return decapsulateIPv4(outer) }
        let innerOffset = outer.headerLength
        guard let whole = IPv6View(bytes.extracting(droppingFirst: innerOffset)) else { return .drop(.downlinkShort) }
        guard outer.destination == local else { return .drop(.downlinkOuterDestination) }
        guard whole.version == 6 else { return .drop(.downlinkNotIPv6) }
        guard let packet = whole.trimmed else { return .drop(.downlinkTruncated) }
        let innerLength = packet.bytes.byteCount

        let outerSource = outer.source
        switch peers {
        case .remote(let remote):
            if outerSource != remote { return .drop(.downlinkOuterSourceUnknown) }
            if packet.isNestedTunnel && sourceCheck == .strict { return .drop(.downlinkNestedTunnel) }
        case .domain(let peers):
            if let refusal = refusal(of: packet, from: outerSource, among: peers) {
                if sourceCheck == .strict { return .drop(refusal) }
                if let refusal = lenientRefusal(of: packet, from: outerSource) { return .drop(refusal) }
            }
        case .isatap(let peers):
            if let refusal = refusal(of: packet, from: outerSource, among: peers) { return .drop(refusal) }
        }

        guard let trafficClass = ECN.decapsulate(outer: outer.typeOfService, inner: packet.trafficClass) else {
            return .drop(.downlinkECN)
        }
        return .deliver(Delivery(innerOffset: innerOffset, innerLength: innerLength, trafficClass: trafficClass))
    }

    /// Judges a batch of packets as a raw socket hands them over, IPv4 header first, and prepares the good ones for the TUN:
    /// merged where they can be, and with a virtio-net header written over the end of the outer header, which nobody needs any
    /// more.
    /// - Parameters:
    ///   - batch: where in `memory` they are.
    ///   - merge: empty, and empty again afterwards.
    ///   - witness: knows which packets the kernel merged; without one that is guessed, see `UnfinishedWork`.
    ///   - frames: takes the packets to deliver and those to forget; it must have room for the whole batch.
    @_lifetime(memory: copy memory)
    public func decapsulate(
        _ batch: borrowing FixedList<Slice>, in memory: inout MutableRawSpan, merge: inout ReceiveMerge,
        witness: (any MergeWitness)? = nil, into frames: inout FrameBatch, counters: inout Counters
    ) {
        // Where nothing was merged, nobody is asked, and each packet is one.
        let asks = witness?.beginBatch() ?? false
        let unasked: PacketCount? = witness == nil ? nil : .one
        for index in 0..<batch.count {
            let slice = batch[index]
            // Refused ones, too: what is known of them is of no use afterwards.
            let count = asks ? witness?.count(of: memory.bytes.extracting(slice.range)) : unasked
            let reason: DropReason
            switch decapsulate(memory.bytes.extracting(slice.range)) {
            case .deliver(let delivery):
                let inner = Slice(offset: Int(slice.offset) + delivery.innerOffset, length: delivery.innerLength)
                if let work = unfinishedWork(inner, delivery, count, in: memory.bytes) {
                    deliver(inner, delivery, work, in: &memory, merge: &merge)
                    continue
                }
                reason = .downlinkUnfinishedOversized
            case .drop(let refusal):
                reason = refusal
            }
            counters.count(reason)
            frames.dropped.append(slice)
        }
        if asks { witness?.endBatch() }
        merge.emit(in: &memory, into: &frames, counters: &counters)
    }

    @inline(__always)
    func unfinishedWork(_ inner: Slice, _ delivery: Delivery, _ count: PacketCount?, in memory: RawSpan) -> UnfinishedWork? {
        let packet = memory.extracting(inner.range)
        return delivery.isIPv4
            ? UnfinishedWork(ipv4: packet, standingFor: count, mtu: mtu)
            : UnfinishedWork(packet, standingFor: count, mtu: mtu)
    }

    @inline(__always)
    @_lifetime(memory: copy memory)
    func deliver(
        _ inner: Slice, _ delivery: Delivery, _ work: UnfinishedWork, in memory: inout MutableRawSpan, merge: inout ReceiveMerge
    ) {
        if delivery.isIPv4 {
            IPv4Header.rewrite(typeOfService: delivery.trafficClass, in: &memory, at: Int(inner.offset))
        } else {
            IPv6Header.rewrite(trafficClass: delivery.trafficClass, in: &memory, at: Int(inner.offset))
        }
        if let checksum = work.checksum {
            let field = Int(work.virtio.checksumStart) + Int(work.virtio.checksumOffset)
            memory.put(big: checksum, at: Int(inner.offset) + field)
        }
        mssClamp.apply(to: inner, in: &memory, isUnfinished: work.virtio.needsChecksum)
        if delivery.isIPv4 { merge.addIPv4(inner, work.virtio) } else { merge.add(inner, work, in: memory.bytes) }
    }
}
