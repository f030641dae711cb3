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
    ///   - mtu: the TUN's; a longer unfinished TCP packet is a merged one. An unfinished datagram may be one of any length:
    ///     `isUnfinishedDatagram`.
    /// - Returns: nil for merged TCP behind more headers than the least MTU has room for.
    @inlinable
    public init?(delivering bytes: RawSpan, mtu: Int) {
        self.init()
        guard let packet = IPv6View(bytes) else { return }
        let upper = packet.upperLayer
        // With a routing header under way the pseudo header holds an address further on in it; such a packet is nobody's TCP
        // connection through a virtual wire.
        if !upper.isTransport || upper.hasSegmentsLeft { return }
        var addresses = InternetChecksum()
        addresses.add(packet.source)
        addresses.add(packet.destination)
        if !leaveToTUN(upper, of: bytes, addresses, merged: .tcp6, mtu: mtu) { return nil }
    }

    /// The same of an IPv4 packet.
    public init?(deliveringIPv4 bytes: RawSpan, mtu: Int) {
        self.init()
        guard let packet = IPv4View(bytes) else { return }
        let upper = packet.upperLayer
        if !upper.isTransport { return }
        var addresses = InternetChecksum()
        addresses.add(packet.source.rawValue)
        addresses.add(packet.destination.rawValue)
        if !leaveToTUN(upper, of: bytes, addresses, merged: .tcp4, mtu: mtu) { return nil }
    }

    /// - Parameters:
    ///   - addresses: the pseudo header's.
    ///   - merged: what a merged packet is to be cut as.
    /// - Returns: false where the packet cannot be delivered.
    @inlinable
    mutating func leaveToTUN(
        _ upper: UpperLayer, of bytes: RawSpan, _ addresses: InternetChecksum, merged: Segmentation, mtu: Int
    ) -> Bool {
        // A fragment's checksum covers all fragments, so it is always finished.
        if upper.isFragment { return true }
        let transport = bytes.extracting(droppingFirst: upper.offset)
        let isTCP = upper.protocolNumber == ProtocolNumber.tcp
        let headerLength: Int
        let field: UInt16
        var answersMark = false
        if isTCP {
            guard let tcp = TCPView(transport) else { return true }
            (headerLength, field) = (tcp.headerLength, tcp.checksum)
            answersMark = tcp.flags.contains(.cwr)
        } else {
            guard let udp = UDPView(transport), udp.checksum != 0 else { return true }
            (headerLength, field) = (UDPHeader.length, udp.checksum)
        }
        var pseudo = addresses
        pseudo.add(UInt32(truncatingIfNeeded: transport.byteCount))
        pseudo.add(UInt32(upper.protocolNumber))
        guard pseudo.folded == field else { return true }

        needsChecksum = true
        checksumStart = UInt16(truncatingIfNeeded: upper.offset)
        checksumOffset = UInt16(isTCP ? TCPHeader.checksumOffset : UDPHeader.checksumOffset)
        if !isTCP || bytes.byteCount <= mtu { return true }
        let size = Self.leastMTU - upper.offset - headerLength
        if size <= 0 { return false }
        segmentation = merged
        hasECN = answersMark
        self.headerLength = UInt16(truncatingIfNeeded: upper.offset + headerLength)
        segmentSize = UInt16(truncatingIfNeeded: size)
        return true
    }
}
