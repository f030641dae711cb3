// A peer on the same machine, or behind a virtual wire, may send packets whose TCP or UDP checksum its kernel left for the
// hardware; and a receiving kernel may have merged several TCP packets into one (GRO), whose checksum it left unfinished
// likewise. A raw socket shows both without saying so: the only sign is the checksum field, which holds the folded
// pseudo-header sum, not complemented.

extension VirtioNetHeader {
    /// The least MTU of an IPv6 link (RFC 8200 section 5): segments of it pass every link behind this host. A raw socket does
    /// not tell how long a merged packet's segments were.
    @usableFromInline static var leastMTU: Int { 1280 }

    /// The header with which the TUN finishes what is unfinished in an inner packet that came from the underlay.
    ///
    /// A finished checksum looks unfinished once in 65535 times; finishing it again then gives the same value.
    /// - Parameters:
    ///   - bytes: the packet, exactly as long as its IPv6 header says.
    ///   - mtu: the TUN's; a longer unfinished packet is a merged one.
    /// - Returns: nil for a merged packet whose segment size cannot be known: unfinished UDP longer than the MTU; and for TCP
    ///   behind more headers than the least MTU has room for.
    @inlinable
    public init?(delivering bytes: RawSpan, mtu: Int) {
        self.init()
        guard let packet = IPv6View(bytes) else { return }
        let upper = packet.upperLayer
        guard upper.protocolNumber == ProtocolNumber.tcp || upper.protocolNumber == ProtocolNumber.udp else { return }
        // With a routing header under way the pseudo header holds an address further on in it; such a packet is nobody's TCP
        // connection through a virtual wire. A fragment's checksum covers all fragments, so it is always finished.
        if upper.isFragment || upper.hasSegmentsLeft { return }
        let transport = bytes.extracting(droppingFirst: upper.offset)

        let isTCP = upper.protocolNumber == ProtocolNumber.tcp
        let checksumOffset = isTCP ? TCPHeader.checksumOffset : UDPHeader.checksumOffset
        let headerLength: Int
        let field: UInt16
        if isTCP {
            guard let tcp = TCPView(transport) else { return }
            (headerLength, field) = (tcp.headerLength, tcp.checksum)
            hasECN = tcp.flags.contains(.cwr)
        } else {
            guard let udp = UDPView(transport), udp.checksum != 0 else { return }
            (headerLength, field) = (UDPHeader.length, udp.checksum)
        }
        var pseudo = InternetChecksum()
        pseudo.addPseudoHeader(
            source: packet.source, destination: packet.destination, length: transport.byteCount,
            protocolNumber: upper.protocolNumber)
        guard pseudo.folded == field else {
            hasECN = false
            return
        }

        needsChecksum = true
        checksumStart = UInt16(truncatingIfNeeded: upper.offset)
        self.checksumOffset = UInt16(truncatingIfNeeded: checksumOffset)
        if bytes.byteCount <= mtu {
            hasECN = false
            return
        }
        let size = Self.leastMTU - upper.offset - headerLength
        if !isTCP || size <= 0 { return nil }
        segmentation = .tcp6
        self.headerLength = UInt16(truncatingIfNeeded: upper.offset + headerLength)
        segmentSize = UInt16(truncatingIfNeeded: size)
    }
}
