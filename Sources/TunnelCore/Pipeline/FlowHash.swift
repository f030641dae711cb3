/// A number that is the same for all packets of a flow, to spread flows with. Not a defence against chosen flows.
public enum FlowHash {
    /// Over the addresses, the flow label and, where the transport header follows directly, the ports.
    @inlinable
    public static func of(_ packet: borrowing IPv6View) -> UInt32 {
        let (source, destination) = (packet.source, packet.destination)
        var hash = source.high ^ source.low &* 0x9E37_79B9_7F4A_7C15
        hash = (hash ^ hash >> 29 ^ destination.high) &* 0xBF58_476D_1CE4_E5B9
        hash = (hash ^ hash >> 32 ^ destination.low) &* 0x94D0_49BB_1331_11EB
        var rest = UInt64(packet.flowLabel)
        let isTransport = packet.nextHeader == ProtocolNumber.tcp || packet.nextHeader == ProtocolNumber.udp
        if isTransport && packet.bytes.byteCount >= IPv6Header.length + 4 {
            rest |= UInt64(packet.bytes.big32(at: IPv6Header.length)) << 32
        }
        hash = (hash ^ hash >> 31 ^ rest) &* 0x9E37_79B9_7F4A_7C15
        return UInt32(truncatingIfNeeded: hash >> 32)
    }

    /// Which of `count` things the hash picks; `count` must not be 0.
    @inlinable
    public static func pick(_ hash: UInt32, of count: Int) -> Int {
        Int(truncatingIfNeeded: (UInt64(hash) &* UInt64(truncatingIfNeeded: count)) >> 32)
    }
}
