// RFC 8200 section 3
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  0 |Version| Traffic Class |           Flow Label                  |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  4 |         Payload Length        |  Next Header  |   Hop Limit   |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  8 |                                                               |
//    +                         Source Address (16 bytes)             +
//    |                                                               |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// 24 |                                                               |
//    +                      Destination Address (16 bytes)           +
//    |                                                               |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

/// A packet of at least 40 bytes, read as an IPv6 header and what follows it. The version is for the caller to check.
public struct IPv6View: ~Escapable {
    public let bytes: RawSpan

    /// nil for fewer than 40 bytes.
    @inlinable @_lifetime(copy bytes)
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= IPv6Header.length else { return nil }
        self.bytes = bytes
    }

    @inlinable public var version: UInt8 { bytes.byte(at: 0) >> 4 }
    /// Six bits of DSCP, two of ECN.
    @inlinable public var trafficClass: UInt8 { UInt8(truncatingIfNeeded: bytes.big16(at: 0) >> 4) }
    @inlinable public var flowLabel: UInt32 { bytes.big32(at: 0) & 0xF_FFFF }
    @inlinable public var payloadLength: Int { Int(bytes.big16(at: 4)) }
    @inlinable public var nextHeader: UInt8 { bytes.byte(at: 6) }
    @inlinable public var hopLimit: UInt8 { bytes.byte(at: 7) }
    @inlinable public var source: IPv6Address { bytes.address6(at: 8) }
    @inlinable public var destination: IPv6Address { bytes.address6(at: 24) }
    /// Header and payload, by the payload length field.
    @inlinable public var totalLength: Int { IPv6Header.length + payloadLength }

    /// The same packet without what stands behind its payload; nil if the payload is not all there.
    @inlinable public var trimmed: IPv6View? {
        @_lifetime(copy self) get {
            guard totalLength <= bytes.byteCount else { return nil }
            return IPv6View(bytes.extracting(first: totalLength))
        }
    }
}

/// An IPv6 header as values.
public struct IPv6Header: Equatable, Sendable {
    public static let length = 40
    /// Every link carries packets of this length (section 5).
    public static let leastMTU = 1280

    public var trafficClass: UInt8 = 0
    /// 20 bits.
    public var flowLabel: UInt32 = 0
    public var payloadLength: UInt16
    public var nextHeader: UInt8
    public var hopLimit: UInt8 = 64
    public var source: IPv6Address
    public var destination: IPv6Address

    public init(payloadLength: UInt16, nextHeader: UInt8, source: IPv6Address, destination: IPv6Address) {
        self.payloadLength = payloadLength
        self.nextHeader = nextHeader
        self.source = source
        self.destination = destination
    }

    public init(_ view: borrowing IPv6View) {
        trafficClass = view.trafficClass
        flowLabel = view.flowLabel
        payloadLength = UInt16(view.payloadLength)
        nextHeader = view.nextHeader
        hopLimit = view.hopLimit
        source = view.source
        destination = view.destination
    }

    /// Writes all 40 bytes at `offset`; `bytes` must hold them.
    @_lifetime(bytes: copy bytes)
    public func emit(into bytes: inout MutableRawSpan, at offset: Int = 0) {
        precondition(offset >= 0 && bytes.byteCount - offset >= Self.length)
        bytes.put(big: 6 << 28 | UInt32(trafficClass) << 20 | flowLabel & 0xF_FFFF, at: offset)
        bytes.put(big: payloadLength, at: offset + 4)
        bytes.put(nextHeader, at: offset + 6)
        bytes.put(hopLimit, at: offset + 7)
        bytes.put(source, at: offset + 8)
        bytes.put(destination, at: offset + 24)
    }

    /// Replaces the traffic class of a header that is already written at `offset`.
    @inlinable @_lifetime(bytes: copy bytes)
    static func rewrite(trafficClass: UInt8, in bytes: inout MutableRawSpan, at offset: Int) {
        let label = bytes.bytes.byte(at: offset + 1) & 15
        bytes.put(6 << 4 | trafficClass >> 4, at: offset)
        bytes.put(trafficClass << 4 | label, at: offset + 1)
    }
}
