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
    ///   - witness: tells merged datagrams from single ones; without one an unfinished datagram counts as single up to the MTU.
    ///   - frames: takes the packets to deliver and those to forget; it must have room for the whole batch.
    @_lifetime(memory: copy memory)
    public func decapsulate(
        _ batch: borrowing FixedList<Slice>, in memory: inout MutableRawSpan, merge: inout ReceiveMerge,
        witness: (any DatagramWitness)? = nil, into frames: inout FrameBatch, counters: inout Counters
    ) {
        witness?.beginBatch()
        for index in 0..<batch.count {
            let slice = batch[index]
            let reason: DropReason
            switch decapsulate(memory.bytes.extracting(slice.range)) {
            case .deliver(let delivery):
                let inner = Slice(offset: Int(slice.offset) + delivery.innerOffset, length: delivery.innerLength)
                if var virtio = unfinishedWork(inner, delivery, in: memory.bytes),
                    !virtio.isUnfinishedDatagram
                        || settle(&virtio, length: inner.length, as: memory.bytes.extracting(slice.range), witness)
                {
                    deliver(inner, delivery, virtio, in: &memory, merge: &merge)
                    continue
                }
                reason = .downlinkUnfinishedOversized
            case .drop(let refusal):
                reason = refusal
            }
            counters.count(reason)
            frames.dropped.append(slice)
        }
        merge.emit(in: &memory, into: &frames, counters: &counters)
    }

    @inline(__always)
    func unfinishedWork(_ inner: Slice, _ delivery: Delivery, in memory: RawSpan) -> VirtioNetHeader? {
        let packet = memory.extracting(inner.range)
        return delivery.isIPv4
            ? VirtioNetHeader(deliveringIPv4: packet, mtu: mtu) : VirtioNetHeader(delivering: packet, mtu: mtu)
    }

    /// Settles how many datagrams an unfinished one stands for.
    /// - Parameters:
    ///   - length: of the inner packet.
    ///   - packet: with the outer header.
    /// - Returns: false if that is not known.
    func settle(
        _ virtio: inout VirtioNetHeader, length: UInt32, as packet: RawSpan, _ witness: (any DatagramWitness)?
    ) -> Bool {
        guard let witness else { return Int(length) <= mtu }
        switch witness.datagrams(in: packet) {
        case .one: return true
        case .several(let size): return virtio.cut(intoDatagramsOf: size, length: Int(length))
        case .unknown: return false
        }
    }

    @inline(__always)
    @_lifetime(memory: copy memory)
    func deliver(
        _ inner: Slice, _ delivery: Delivery, _ virtio: VirtioNetHeader, in memory: inout MutableRawSpan,
        merge: inout ReceiveMerge
    ) {
        if delivery.isIPv4 {
            IPv4Header.rewrite(typeOfService: delivery.trafficClass, in: &memory, at: Int(inner.offset))
        } else {
            IPv6Header.rewrite(trafficClass: delivery.trafficClass, in: &memory, at: Int(inner.offset))
        }
        mssClamp.apply(to: inner, in: &memory, isUnfinished: virtio.needsChecksum)
        if delivery.isIPv4 { merge.addIPv4(inner, virtio) } else { merge.add(inner, virtio, in: memory.bytes) }
    }
}
