// RFC 8200 section 4.1; RFC 7045 lists the types. All but two of them begin alike:
//
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-
//    |  Next Header  |  Hdr Ext Len  |    ...            length = (Hdr Ext Len + 1) * 8
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-
//
// The fragment header is 8 bytes; the authentication header counts in units of 4: (Payload Len + 2) * 4.

/// What stands behind an IPv6 header's extension headers, or behind an IPv4 header.
public struct UpperLayer: Equatable, Sendable {
    /// The next header value that ends the chain: a transport, a tunnel, or a type that is not an extension header.
    public var protocolNumber: UInt8
    /// Where it begins, from the packet's first byte.
    public var offset: Int
    /// The packet is a fragment, so what is at `offset` is a part.
    public var isFragment: Bool
    /// It is not even the beginning: there are no headers at `offset`.
    public var isLaterFragment: Bool
    /// A routing header with segments left: the destination field is not the final destination.
    public var hasSegmentsLeft: Bool

    @inlinable
    public init(
        protocolNumber: UInt8, offset: Int, isFragment: Bool = false, isLaterFragment: Bool = false, hasSegmentsLeft: Bool = false
    ) {
        self.protocolNumber = protocolNumber
        self.offset = offset
        self.isFragment = isFragment
        self.isLaterFragment = isLaterFragment
        self.hasSegmentsLeft = hasSegmentsLeft
    }
}

extension UpperLayer {
    /// TCP or UDP.
    @inlinable var isTransport: Bool { protocolNumber == ProtocolNumber.tcp || protocolNumber == ProtocolNumber.udp }
}

extension IPv6View {
    /// Walks the chain of extension headers, as far as `bytes` goes: each is at least 8 bytes, so the packet's length bounds
    /// the walk. A header that is cut off ends it: its own type is then the answer, which no rule takes for a transport or a
    /// tunnel.
    @inlinable
    public var upperLayer: UpperLayer {
        if !Self.isExtension(nextHeader) {
            return UpperLayer(protocolNumber: nextHeader, offset: IPv6Header.length)
        }
        return walkExtensionHeaders()
    }

    @inlinable
    static func isExtension(_ type: UInt8) -> Bool {
        switch type {
        case ProtocolNumber.hopByHop, ProtocolNumber.routing, ProtocolNumber.fragment, ProtocolNumber.authentication,
            ProtocolNumber.destinationOptions, ProtocolNumber.mobility, ProtocolNumber.hostIdentity, ProtocolNumber.shim6:
            true
        default: false
        }
    }

    @usableFromInline
    func walkExtensionHeaders() -> UpperLayer {
        var layer = UpperLayer(protocolNumber: nextHeader, offset: IPv6Header.length)
        while Self.isExtension(layer.protocolNumber), layer.offset + 8 <= bytes.byteCount {
            let lengthField = Int(bytes.byte(at: layer.offset + 1))
            let length: Int
            switch layer.protocolNumber {
            case ProtocolNumber.fragment:
                layer.isFragment = true
                length = 8
                layer.isLaterFragment = bytes.big16(at: layer.offset + 2) & ~7 != 0
            case ProtocolNumber.authentication:
                length = (lengthField + 2) * 4
            case ProtocolNumber.routing:
                if bytes.byte(at: layer.offset + 3) != 0 { layer.hasSegmentsLeft = true }
                length = (lengthField + 1) * 8
            default:
                length = (lengthField + 1) * 8
            }
            let next = bytes.byte(at: layer.offset)
            guard layer.offset + length <= bytes.byteCount else { return layer }
            layer.protocolNumber = next
            layer.offset += length
            // Behind the fragment header of a later fragment there is only data (RFC 8200 section 4.5).
            if layer.isLaterFragment { return layer }
        }
        return layer
    }
}
