// A peer on the same machine, or behind a virtual wire, may send packets whose TCP or UDP checksum its kernel left for the
// hardware; and a receiving kernel may have merged several packets into one (GRO). A raw socket shows both without saying so.
//
// The checksum field of an unfinished packet, and of a merged one (net/ipv4/tcp_offload.c `tcp_gro_complete`), holds the folded
// pseudo-header sum, not complemented. Where an interface merges by lists (rx-gro-list), it is the first segment's own, as that
// arrived, though the lengths are those of all segments (`tcp6_gro_complete`, `udp6_gro_complete`).

/// What is left to do about an inner packet that came from the underlay.
///
/// A finished checksum looks unfinished once in 65535 times; finishing it again then gives the same value.
public struct UnfinishedWork: Equatable, Sendable, BitwiseCopyable {
    /// With what the TUN finishes it, and cuts it into the packets that it stands for.
    public var virtio = VirtioNetHeader()
    /// What the checksum field must hold for that, where it holds the first segment's.
    public var checksum: UInt16?
    /// Several packets may be in it, of which nobody knows how long they were: its own length is no packet's.
    public var isOfUnknownParts = false

    /// - Parameters:
    ///   - bytes: an IPv6 packet, exactly as long as its header says.
    ///   - count: how many packets it stands for; nil where nobody saw it arrive.
    ///   - mtu: the TUN's.
    /// - Returns: nil for one that cannot be delivered: its segments are not known, and there is no length that is right, or
    ///   safe, for all.
    @inlinable
    public init?(_ bytes: RawSpan, standingFor count: PacketCount?, mtu: Int) {
        guard let packet = IPv6View(bytes) else { return }
        let upper = packet.upperLayer
        // With a routing header under way the pseudo header holds an address further on in it; such a packet is nobody's TCP
        // connection through a virtual wire.
        if !upper.isTransport || upper.hasSegmentsLeft { return }
        var addresses = InternetChecksum()
        addresses.add(packet.source)
        addresses.add(packet.destination)
        if !settle(upper, of: bytes, addresses, .tcp6, count, mtu) { return nil }
    }

    /// The same of an IPv4 packet.
    public init?(ipv4 bytes: RawSpan, standingFor count: PacketCount?, mtu: Int) {
        guard let packet = IPv4View(bytes) else { return }
        let upper = packet.upperLayer
        if !upper.isTransport { return }
        var addresses = InternetChecksum()
        addresses.add(packet.source.rawValue)
        addresses.add(packet.destination.rawValue)
        if !settle(upper, of: bytes, addresses, .tcp4, count, mtu) { return nil }
    }

    /// - Parameters:
    ///   - addresses: the pseudo header's.
    ///   - tcp: what merged TCP is to be cut as.
    /// - Returns: false where the packet cannot be delivered.
    @inlinable
    mutating func settle(
        _ upper: UpperLayer, of bytes: RawSpan, _ addresses: InternetChecksum, _ tcp: VirtioNetHeader.Segmentation,
        _ count: PacketCount?, _ mtu: Int
    ) -> Bool {
        // A fragment's checksum covers all fragments, so it is always finished; and the kernel merges none.
        if upper.isFragment { return true }
        let bytesOfTransport = bytes.extracting(droppingFirst: upper.offset)
        guard let transport = ArrivedTransport(bytesOfTransport, upper.protocolNumber) else { return true }
        var pseudo = addresses
        pseudo.add(UInt32(truncatingIfNeeded: bytesOfTransport.byteCount))
        pseudo.add(UInt32(upper.protocolNumber))
        let isUnfinished = pseudo.folded == transport.checksum
        let size = count?.segmentSize(within: bytesOfTransport.byteCount - transport.headerLength)
        if !isUnfinished {
            // What was noted of another packet that began alike does no harm.
            guard let size, transport.isChecksum(ofFirst: size, bytesOfTransport, addresses) else { return true }
            checksum = pseudo.folded
        }

        virtio.needsChecksum = true
        virtio.checksumStart = UInt16(truncatingIfNeeded: upper.offset)
        virtio.checksumOffset = UInt16(transport.isTCP ? TCPHeader.checksumOffset : UDPHeader.checksumOffset)
        let headers = upper.offset + transport.headerLength
        if let size {
            cut(transport, as: tcp, headers: headers, size: size)
            return true
        }
        if !transport.isTCP {
            if count == .one { return true }
            // Several within the MTU look exactly like one. That something was lost is a reason to doubt it.
            isOfUnknownParts = true
            return count == nil && bytes.byteCount <= mtu
        }
        if count == .one && bytes.byteCount <= mtu { return true }
        // TCP may be cut anywhere: into what passes every link behind this host.
        isOfUnknownParts = true
        if bytes.byteCount <= IPv6Header.leastMTU { return true }
        if headers >= IPv6Header.leastMTU { return false }
        cut(transport, as: tcp, headers: headers, size: IPv6Header.leastMTU - headers)
        return true
    }

    @inlinable
    mutating func cut(_ transport: ArrivedTransport, as tcp: VirtioNetHeader.Segmentation, headers: Int, size: Int) {
        virtio.segmentation = transport.isTCP ? tcp : .udp
        virtio.hasECN = transport.answersMark
        virtio.headerLength = UInt16(truncatingIfNeeded: headers)
        virtio.segmentSize = UInt16(truncatingIfNeeded: size)
    }
}

/// What matters here of a TCP or UDP header.
@usableFromInline
struct ArrivedTransport {
    @usableFromInline let isTCP: Bool
    @usableFromInline let headerLength: Int
    @usableFromInline let checksum: UInt16
    /// TCP's CWR.
    @usableFromInline let answersMark: Bool

    /// - Returns: nil without a checksum, finished or not.
    @inlinable
    init?(_ bytes: RawSpan, _ protocolNumber: UInt8) {
        if protocolNumber == ProtocolNumber.tcp {
            guard let tcp = TCPView(bytes) else { return nil }
            (isTCP, headerLength, checksum, answersMark) = (true, tcp.headerLength, tcp.checksum, tcp.flags.contains(.cwr))
        } else {
            guard let udp = UDPView(bytes), udp.checksum != 0 else { return nil }
            (isTCP, headerLength, checksum, answersMark) = (false, UDPHeader.length, udp.checksum, false)
        }
    }

    /// Whether the checksum is the one with which a packet of only the first `size` bytes of payload arrived: right, or
    /// unfinished.
    @usableFromInline
    func isChecksum(ofFirst size: Int, _ bytes: RawSpan, _ addresses: InternetChecksum) -> Bool {
        let length = headerLength + size
        var sum = addresses
        sum.add(UInt32(truncatingIfNeeded: length))
        sum.add(UInt32(isTCP ? ProtocolNumber.tcp : ProtocolNumber.udp))
        if sum.folded == checksum { return true }
        if !isTCP {
            // In place of the length that the kernel wrote into UDP's header.
            sum.add(~bytes.big16(at: UDPHeader.lengthOffset))
            sum.add(UInt16(truncatingIfNeeded: length))
        }
        sum.add(bytes.extracting(0..<length))
        return sum.folded == 0xFFFF
    }
}
