// What is told to the source of a packet that cannot go on (RFC 4443 section 3).

/// An ICMPv6 error, without the packet it is about.
public struct ICMPv6Error: Hashable, Sendable, BitwiseCopyable {
    public var type: UInt8
    public var code: UInt8
    /// The four bytes whose meaning the type gives.
    public var rest: UInt32

    public static func packetTooBig(mtu: Int) -> ICMPv6Error {
        ICMPv6Error(type: ICMPv6Type.packetTooBig, code: 0, rest: UInt32(mtu))
    }
    public static var addressUnreachable: ICMPv6Error { ICMPv6Error(type: ICMPv6Type.destinationUnreachable, code: 3, rest: 0) }
    public static var hopLimitExceeded: ICMPv6Error { ICMPv6Error(type: ICMPv6Type.timeExceeded, code: 0, rest: 0) }

    /// The most that `emit` writes: section 2.4 (c) wants no error longer than the least MTU.
    public static var longest: Int { VirtioNetHeader.length + IPv6Header.leastMTU }

    /// Whether the packet's source is to be told; false where section 2.4 (e) wants no answer.
    public func isDue(about packet: InvokingPacket, in memory: RawSpan) -> Bool {
        recipient(memory.extracting(packet.head.range)) != nil
    }

    /// Writes the error as the TUN takes it, virtio-net header first.
    /// - Parameters:
    ///   - packet: what it is about, in `memory`.
    ///   - source: this end of the tunnel. From a link-local one no router would forward the error: to a source beyond the link it
    ///     then seems to come from where the packet was going.
    ///   - offset: where to write, to `longest` bytes that hold nothing of the packet.
    /// - Returns: what was written; nil where none is due.
    @_lifetime(memory: copy memory)
    public func emit(
        about packet: InvokingPacket, from source: IPv6Address, in memory: inout MutableRawSpan, at offset: Int
    ) -> Slice? {
        precondition(offset >= 0 && offset + Self.longest <= memory.byteCount)
        guard let destination = recipient(memory.bytes.extracting(packet.head.range)) else { return nil }
        let source = sender(source, to: destination, about: memory.bytes.extracting(packet.head.range))

        let message = offset + VirtioNetHeader.length + IPv6Header.length
        let body = message + ICMPv6Header.length
        var end = body
        let limit = offset + Self.longest
        var header = ICMPv6Header(type: type, code: code)
        header.rest = rest
        if let extensions = packet.extensions, body + extensions.quoteLength + Int(extensions.slice.length) <= limit {
            // RFC 4884 section 4.5: the length counts units of 8 bytes and stands in the first byte.
            header.rest |= UInt32(extensions.quoteLength / 8) << 24
            memory.append(packet.head, at: &end, limit: body + extensions.quoteLength)
            while end < body + extensions.quoteLength {
                memory.put(0 as UInt8, at: end)
                end += 1
            }
            memory.append(extensions.slice, at: &end, limit: limit)
        } else {
            memory.append(packet.head, at: &end, limit: limit)
            memory.append(packet.tail, at: &end, limit: limit)
        }

        func checksum(_ bytes: RawSpan) -> UInt16 {
            var sum = InternetChecksum()
            sum.addPseudoHeader(
                source: source, destination: destination, length: bytes.byteCount, protocolNumber: ProtocolNumber.icmpv6)
            sum.add(bytes)
            return sum.checksum
        }
        header.emit(into: &memory, at: message)
        header.checksum = checksum(memory.bytes.extracting(message..<end))
        header.emit(into: &memory, at: message)
        IPv6Header(
            payloadLength: UInt16(end - message), nextHeader: ProtocolNumber.icmpv6, source: source, destination: destination
        ).emit(into: &memory, at: offset + VirtioNetHeader.length)
        VirtioNetHeader().emit(into: &memory, at: offset)
        return Slice(offset: offset, length: end - offset)
    }

    private func sender(_ source: IPv6Address, to destination: IPv6Address, about bytes: RawSpan) -> IPv6Address {
        guard source.isLinkLocal, !destination.isLinkLocal, let packet = IPv6View(bytes) else { return source }
        return packet.destination.isMulticast || packet.destination.isLinkLocal ? source : packet.destination
    }

    /// The packet's source, if it may be told. RFC 4443 section 2.4 (e): no error about errors, nor to what is not one node, and
    /// about multicast only that it is too big.
    private func recipient(_ bytes: RawSpan) -> IPv6Address? {
        guard let packet = IPv6View(bytes), packet.version == 6 else { return nil }
        let source = packet.source
        if source == .unspecified || source == .loopback || source.isMulticast { return nil }
        if packet.destination.isMulticast && type != ICMPv6Type.packetTooBig { return nil }
        let upper = packet.upperLayer
        if upper.protocolNumber == ProtocolNumber.icmpv6 {
            guard upper.offset < bytes.byteCount else { return nil }
            let type = bytes.byte(at: upper.offset)
            if type < 128 || type == ICMPv6Type.redirect { return nil }
        }
        return source
    }
}

/// The packet that an error is about, as far as it is at hand.
public struct InvokingPacket: Hashable, Sendable {
    /// Its headers at least.
    public var head: Slice
    /// What follows them: a segment's payload lies elsewhere.
    public var tail = Slice(offset: 0, length: 0)
    /// What a router added to its quote of the packet.
    public var extensions: Extensions?

    /// An extension structure of RFC 4884.
    public struct Extensions: Hashable, Sendable {
        public var slice: Slice
        /// The quote in front of it is padded to so many bytes, a multiple of 8.
        public var quoteLength: Int
    }

    public init(head: Slice) { self.head = head }
}

extension MutableRawSpan {
    /// Copies a slice to `end`, as much of it as fits in front of `limit`, and moves `end` behind it.
    @_lifetime(self: copy self)
    mutating func append(_ slice: Slice, at end: inout Int, limit: Int) {
        let count = min(Int(slice.length), limit - end)
        precondition(count >= 0 && Int(slice.offset) + count <= byteCount && end + count <= byteCount)
        copy(from: Int(slice.offset), to: end, count: count)
        end += count
    }
}
