// TCP MSS clamping. Each end of a TCP connection announces in its SYN how long segments it takes (RFC 9293 section 3.7.1). Where
// path MTU discovery fails behind one of them, lowering that number on its way through keeps segments to what the tunnel carries.

/// The most that a SYN may announce when it crosses the tunnel, in either direction.
public struct MSSClamp: Hashable, Sendable {
    @usableFromInline let ipv6: UInt16
    @usableFromInline let ipv4: UInt16

    /// Nothing is more than that.
    public static let off = MSSClamp(UInt16.max)

    public init(_ size: UInt16) { (ipv6, ipv4) = (size, size) }

    /// What an MTU leaves beside headers without options, which is what the MSS counts (RFC 6691).
    public init(mtu: Int) {
        ipv6 = UInt16(clamping: mtu - IPv6Header.length - TCPHeader.minimumLength)
        ipv4 = UInt16(clamping: mtu - IPv4Header.minimumLength - TCPHeader.minimumLength)
    }

    /// Lowers what a SYN announces if it is too much; never raises it, never adds the option, and leaves all else as it is.
    /// - Parameters:
    ///   - packet: an IPv6 or IPv4 packet, exactly as long as its header says.
    ///   - isUnfinished: the checksum field holds the pseudo header's sum, in which no option is.
    @inlinable @_lifetime(memory: copy memory)
    func apply(to packet: Slice, in memory: inout MutableRawSpan, isUnfinished: Bool) {
        if ipv6 == .max { return }
        guard let (header, limit) = headerOfSYN(memory.bytes.extracting(packet.range)) else { return }
        let start = Int(packet.offset) &+ header.lowerBound
        Self.lower(to: limit, start..<start &+ header.count, in: &memory, isUnfinished: isUnfinished)
    }

    /// Where in a packet that opens a TCP connection the TCP header is, options included, and what it may announce.
    @inlinable
    func headerOfSYN(_ bytes: RawSpan) -> (header: Range<Int>, limit: UInt16)? {
        let (upper, limit): (UpperLayer, UInt16)
        if let packet = IPv4View(bytes) {
            (upper, limit) = (packet.upperLayer, ipv4)
        } else if let packet = IPv6View(bytes) {
            (upper, limit) = (packet.upperLayer, ipv6)
        } else {
            return nil
        }
        guard upper.protocolNumber == ProtocolNumber.tcp, !upper.isLaterFragment,
            let tcp = TCPView(bytes.extracting(droppingFirst: upper.offset)), tcp.flags.contains(.syn)
        else { return nil }
        return (upper.offset..<upper.offset &+ tcp.headerLength, limit)
    }

    /// - Parameter header: where in `memory` the whole TCP header is.
    @usableFromInline @_lifetime(memory: copy memory)
    static func lower(to limit: UInt16, _ header: Range<Int>, in memory: inout MutableRawSpan, isUnfinished: Bool) {
        let checksumField = header.lowerBound + TCPHeader.checksumOffset
        var option = header.lowerBound + TCPHeader.minimumLength
        while option + 1 < header.upperBound {
            let kind = memory.bytes.byte(at: option)
            if kind == TCPOption.endOfList { return }
            if kind == TCPOption.noOperation {
                option += 1
                continue
            }
            let length = Int(memory.bytes.byte(at: option + 1))
            guard length >= 2, option + length <= header.upperBound else { return }
            if kind == TCPOption.maximumSegmentSize, length == 4 {
                let size = memory.bytes.big16(at: option + 2)
                if size > limit {
                    memory.put(big: limit, at: option + 2)
                    if !isUnfinished {
                        // On an odd offset the number's bytes lie in two words of the sum, each in the other one's place.
                        let isOdd = (option - header.lowerBound) & 1 != 0
                        let checksum = InternetChecksum.updated(
                            memory.bytes.big16(at: checksumField), replacing: isOdd ? size.byteSwapped : size,
                            with: isOdd ? limit.byteSwapped : limit)
                        memory.put(big: checksum, at: checksumField)
                    }
                }
            }
            option += length
        }
    }
}
