// What an ICMPv4 error about a tunnel packet means to the inner packet's source (net/ipv6/sit.c `ipip6_err`).

/// What is to be done about an ICMPv4 error.
public enum ErrorTranslation: Hashable, Sendable {
    /// Nothing: it says nothing to the inner source, or quotes no packet of this tunnel.
    case ignore
    case answer(ICMPv6Error, about: InvokingPacket, peer: IPv4Address)
    /// It is about the remote of a point-to-point tunnel, but the quote is too short to show whose packet it was. The sources of
    /// the next packets are told.
    case remember
}

extension TunnelPolicy {
    /// Judges an error by its quote: anybody can send one, but it must quote a packet that would go from here to where the quoted
    /// one went. So the answer goes to an address that may send through this tunnel.
    /// - Parameters:
    ///   - quote: where in `memory` the quoted packet is, from its IPv4 header on.
    ///   - extensionOffset: where in the quote RFC 4884's extensions begin; 0 where there are none.
    public func translate(
        type: UInt8, code: UInt8, quote: Slice, extensionOffset: Int, in memory: RawSpan
    ) -> ErrorTranslation {
        guard let error = ICMPv6Error(translating: type, code),
            let outer = IPv4View(memory.extracting(quote.range)),
            outer.source == local, outer.protocolNumber == ProtocolNumber.ipv6
        else { return .ignore }
        let headerLength = outer.headerLength
        let quoteEnd = extensionOffset > headerLength ? min(extensionOffset, Int(quote.length)) : Int(quote.length)
        let inner = outer.bytes.extracting(headerLength..<quoteEnd)
        // With the first 8 bytes behind the header the source can tell which connection it was.
        guard let packet = IPv6View(inner), inner.byteCount >= IPv6Header.length + 8, outer.fragmentOffset == 0 else {
            guard case .remote(outer.destination) = peers else { return .ignore }
            // The packet's own hop limit ran out: no fault of the path.
            return ttl == .inherit && type == ICMPv4Type.timeExceeded ? .ignore : .remember
        }
        guard packet.version == 6, case .send(outer.destination) = nextHop(of: packet) else { return .ignore }

        let start = Int(quote.offset) + headerLength
        var invoking = InvokingPacket(head: Slice(offset: start, length: min(inner.byteCount, packet.totalLength)))
        if extensionOffset > headerLength, extensionOffset < quote.length {
            invoking.extensions = InvokingPacket.Extensions(
                slice: Slice(offset: Int(quote.offset) + extensionOffset, length: Int(quote.length) - extensionOffset),
                // Padded by the length of the outer header, which is left out, as sit does; units are of 8 bytes here, not 4.
                quoteLength: (extensionOffset + 7) & ~7)
        }
        return .answer(error, about: invoking, peer: outer.destination)
    }
}

extension ICMPv6Error {
    /// Fragmentation needed is for the kernel's path MTU; the rest that sit ignores says nothing about the inner destination.
    fileprivate init?(translating type: UInt8, _ code: UInt8) {
        switch (type, code) {
        case (ICMPv4Type.destinationUnreachable, 4), (ICMPv4Type.destinationUnreachable, 5): return nil
        case (ICMPv4Type.destinationUnreachable, _): self = .addressUnreachable
        case (ICMPv4Type.timeExceeded, 0): self = .hopLimitExceeded
        default: return nil
        }
    }
}
