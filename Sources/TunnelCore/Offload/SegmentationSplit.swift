// Segmentation of what the TUN hands over in one piece, as the kernel's own would do it (net/ipv4/tcp_offload.c
// `tcp_gso_segment`, net/ipv4/udp_offload.c `__udp_gso_segment`).

/// How one packet from the TUN is to be finished: cut into segments, or only given its checksum.
public struct SegmentationSplit: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        case tcp
        case udp
        /// One packet whose checksum was left unfinished.
        case checksumOnly
    }

    public let kind: Kind
    let isIPv4: Bool
    /// Where the transport header begins, from the packet's first byte.
    let transportOffset: Int
    /// All headers, extension headers included, which every segment repeats.
    let headerLength: Int
    /// Where the checksum field is, from the packet's first byte.
    let checksumField: Int
    /// Payload bytes of every segment but the last.
    let segmentSize: Int
    public let segmentCount: Int
    let wholeLength: Int

    /// Checks a packet against its virtio-net header. The header's own header length is not trusted.
    /// - Parameter packet: IPv6 or IPv4, trimmed to its inner length.
    /// - Returns: nil where the request makes no sense, or asks for something that was never negotiated.
    public init?(_ packet: RawSpan, _ virtio: borrowing VirtioNetView) {
        if let packet = IPv4View(packet) {
            self.init(packet.bytes, isIPv4: true, behind: packet.headerLength, packet.upperLayer, virtio)
        } else if let packet = IPv6View(packet) {
            self.init(packet.bytes, isIPv4: false, behind: IPv6Header.length, packet.upperLayer, virtio)
        } else {
            return nil
        }
    }

    private init?(
        _ bytes: RawSpan, isIPv4: Bool, behind networkHeader: Int, _ upper: UpperLayer, _ virtio: borrowing VirtioNetView
    ) {
        let length = bytes.byteCount
        wholeLength = length
        self.isIPv4 = isIPv4
        transportOffset = virtio.checksumStart
        checksumField = virtio.checksumStart + virtio.checksumOffset
        guard virtio.needsChecksum, transportOffset >= networkHeader, checksumField + 2 <= length else { return nil }
        let kind: Kind
        switch virtio.segmentation {
        case .none: kind = .checksumOnly
        case .tcp6 where !isIPv4, .tcp4 where isIPv4: kind = .tcp
        case .udp: kind = .udp
        default: return nil
        }
        self.kind = kind
        if kind == .checksumOnly {
            headerLength = length
            segmentSize = 0
            segmentCount = 1
            return
        }

        guard upper.offset == transportOffset, !upper.isFragment else { return nil }
        let transport = bytes.extracting(droppingFirst: transportOffset)
        switch kind {
        case .tcp:
            guard upper.protocolNumber == ProtocolNumber.tcp, virtio.checksumOffset == TCPHeader.checksumOffset,
                let tcp = TCPView(transport)
            else { return nil }
            headerLength = transportOffset + tcp.headerLength
        default:
            guard upper.protocolNumber == ProtocolNumber.udp, virtio.checksumOffset == UDPHeader.checksumOffset,
                transport.byteCount >= UDPHeader.length
            else { return nil }
            headerLength = transportOffset + UDPHeader.length
        }
        segmentSize = virtio.segmentSize
        guard segmentSize > 0 else { return nil }
        segmentCount = max(1, (length - headerLength + segmentSize - 1) / segmentSize)
    }

    /// Of all headers and payload.
    var longestSegment: Int { kind == .checksumOnly ? headerLength : min(headerLength &+ segmentSize, wholeLength) }

    /// Room that the segments' headers take in the scratch memory.
    var scratchLength: Int { kind == .checksumOnly ? 0 : segmentCount &* headerStride }

    /// Headers begin on even addresses, 16 bytes apart at least.
    var headerStride: Int { (headerLength &+ 15) & ~15 }

    /// Puts the segments into `frames`: each a header of its own in the scratch memory and a slice of the payload where it is.
    /// There must be room for all.
    /// - Parameters:
    ///   - packet: where the packet is in `memory`, exactly as long as its inner length.
    @_lifetime(memory: copy memory)
    func emit(
        _ packet: Slice, outer: OuterHeader, in memory: inout MutableRawSpan, into frames: inout FrameBatch
    ) {
        if kind == .checksumOnly {
            finishChecksum(packet, in: &memory)
            frames.append(packet, outer: outer, innerLength: Int(packet.length))
            return
        }
        let start = Int(packet.offset)
        let payloadEnd = start + Int(packet.length)
        // One check for all that is written below; payload and headers lie in different parts of the memory.
        let scratch = frames.takeScratch(scratchLength)
        precondition(payloadEnd <= memory.byteCount && scratch + scratchLength <= memory.byteCount)

        // The field holds the pseudo header's sum with the super-packet's length; a segment's has its own length instead.
        // So the addresses need not be known, among them the final destination behind a routing header.
        var pseudo = InternetChecksum()
        pseudo.add(memory.bytes.big16(at: start &+ checksumField))
        pseudo.add(~UInt16(truncatingIfNeeded: Int(packet.length) &- transportOffset))

        var payload = start + headerLength
        for index in 0..<segmentCount {
            let header = scratch &+ index &* headerStride
            let count = min(segmentSize, payloadEnd - payload)
            let length = headerLength &+ count
            memory.copy(from: start, to: header, count: headerLength)
            if isIPv4 {
                // Each a packet of its own, as the kernel numbers them (net/ipv4/af_inet.c `inet_gso_segment`).
                let identification = memory.bytes.big16(at: start &+ 4) &+ UInt16(truncatingIfNeeded: index)
                IPv4Header.rewrite(
                    totalLength: UInt16(truncatingIfNeeded: length), identification: identification, in: &memory, at: header,
                    length: transportOffset)
            } else {
                memory.put(big: UInt16(truncatingIfNeeded: length &- IPv6Header.length), at: header &+ 4)
            }

            let transport = header &+ transportOffset
            let transportLength = length &- transportOffset
            if kind == .tcp {
                let sequence = memory.bytes.big32(at: start &+ transportOffset &+ 4)
                memory.put(big: sequence &+ UInt32(truncatingIfNeeded: index &* segmentSize), at: transport &+ 4)
                var flags = TCPFlags(rawValue: memory.bytes.byte(at: transport &+ 13))
                // CWR answers one congestion mark, so the first segment alone carries it; FIN and PSH are about the end.
                if index > 0 { flags.remove(.cwr) }
                if index < segmentCount &- 1 { flags.subtract([.fin, .psh]) }
                memory.put(flags.rawValue, at: transport &+ 13)
            } else {
                memory.put(big: UInt16(truncatingIfNeeded: transportLength), at: transport &+ 4)
            }
            memory.put(0 as UInt16, at: header &+ checksumField)
            var sum = pseudo
            sum.add(UInt16(truncatingIfNeeded: transportLength))
            sum.add(unsafe memory.bytes.extracting(unchecked: transport..<header &+ headerLength))
            sum.add(unsafe memory.bytes.extracting(unchecked: payload..<payload &+ count))
            memory.put(big: kind == .tcp ? sum.checksum : sum.udpChecksum, at: header &+ checksumField)

            frames.append(
                Slice(offset: header, length: headerLength), Slice(offset: payload, length: count), outer: outer,
                innerLength: length)
            payload &+= count
        }
    }

    /// Adds the transport header and the payload to the pseudo-header sum that the kernel left in the checksum field.
    @_lifetime(memory: copy memory)
    func finishChecksum(_ packet: Slice, in memory: inout MutableRawSpan) {
        let start = Int(packet.offset)
        var sum = InternetChecksum()
        sum.add(memory.bytes.extracting(start + transportOffset..<start + Int(packet.length)))
        let isUDP = checksumField - transportOffset == UDPHeader.checksumOffset
        memory.put(big: isUDP ? sum.udpChecksum : sum.checksum, at: start + checksumField)
    }
}
