/// Fragmentation needed, for the source of an IPv4 packet with DF that is longer than its path takes (RFC 1191; net/ipv4/ip_tunnel.c
/// `tnl_update_pmtu`).
public struct FragmentationNeeded: Hashable, Sendable {
    /// What the path takes, the outer header left out.
    public var mtu: UInt16

    public init(mtu: UInt16) { self.mtu = mtu }

    /// The most that `emit` writes: no error should be longer than 576 bytes (RFC 1812 section 4.3.2.3).
    static var longest: Int { VirtioNetHeader.length + 576 }

    /// Whether the packet's source is to be told; false where RFC 1122 section 3.2.2 wants no answer.
    public func isDue(about packet: InvokingPacket, in memory: RawSpan) -> Bool {
        Self.ends(of: memory.extracting(packet.head.range)) != nil
    }

    /// Writes the error as the TUN takes it, virtio-net header first.
    ///
    /// It seems to come from the packet's destination: a packet from one of the host's own addresses the kernel takes for a martian.
    /// - Parameters:
    ///   - packet: what it is about, in `memory`.
    ///   - offset: where to write, to `ICMPv6Error.longest` bytes that hold nothing of the packet.
    /// - Returns: what was written; nil where none is due.
    @_lifetime(memory: copy memory)
    public func emit(about packet: InvokingPacket, in memory: inout MutableRawSpan, at offset: Int) -> Slice? {
        precondition(offset >= 0 && offset + Self.longest <= memory.byteCount)
        guard let (source, destination) = Self.ends(of: memory.bytes.extracting(packet.head.range)) else { return nil }
        let message = offset + VirtioNetHeader.length + IPv4Header.minimumLength
        var end = message + ICMPv4Header.length
        memory.append(packet.head, at: &end, limit: offset + Self.longest)
        memory.append(packet.tail, at: &end, limit: offset + Self.longest)

        var header = ICMPv4Header(type: ICMPv4Type.destinationUnreachable, code: 4)
        header.rest = UInt32(mtu)
        header.emit(into: &memory, at: message)
        var sum = InternetChecksum()
        sum.add(memory.bytes.extracting(message..<end))
        header.checksum = sum.checksum
        header.emit(into: &memory, at: message)
        var outer = IPv4Header(
            totalLength: UInt16(end - offset - VirtioNetHeader.length), source: destination, destination: source)
        outer.protocolNumber = ProtocolNumber.icmpv4
        outer.dontFragment = false
        outer.emit(into: &memory, at: offset + VirtioNetHeader.length)
        VirtioNetHeader().emit(into: &memory, at: offset)
        return Slice(offset: offset, length: end - offset)
    }

    /// The packet's source and destination, if the source may be told: no error about errors, nor about what is not between two
    /// hosts, nor to a later fragment.
    private static func ends(of bytes: RawSpan) -> (IPv4Address, IPv4Address)? {
        guard let packet = IPv4View(bytes), packet.fragmentOffset == 0, packet.source.isUnicastHost,
            packet.destination.isUnicastHost
        else { return nil }
        if packet.protocolNumber == ProtocolNumber.icmpv4 {
            guard let message = ICMPv4View(bytes.extracting(droppingFirst: packet.headerLength)) else { return nil }
            switch message.type {
            case ICMPv4Type.destinationUnreachable, ICMPv4Type.sourceQuench, ICMPv4Type.redirect, ICMPv4Type.timeExceeded,
                ICMPv4Type.parameterProblem:
                return nil
            default: break
            }
        }
        return (packet.source, packet.destination)
    }
}
