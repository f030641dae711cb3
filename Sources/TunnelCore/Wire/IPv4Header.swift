// RFC 791 section 3.1
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  0 |Version|  IHL  |Type of Service|          Total Length         |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  4 |         Identification        |Flags|      Fragment Offset    |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  8 |  Time to Live |    Protocol   |         Header Checksum       |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// 12 |                       Source Address                          |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// 16 |                    Destination Address                        |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// 20 |                    Options                    |    Padding    |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

/// A packet that begins with a whole IPv4 header: version 4, IHL of at least 5, all options there.
///
/// The total length is not compared with the bytes at hand, since a view may look at a quote in an ICMP error.
public struct IPv4View: ~Escapable {
    public let bytes: RawSpan

    /// nil unless the header, options included, is whole.
    @inlinable @_lifetime(copy bytes)
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= IPv4Header.minimumLength, bytes.byte(at: 0) >> 4 == 4 else { return nil }
        let headerLength = Int(bytes.byte(at: 0) & 15) * 4
        guard headerLength >= IPv4Header.minimumLength, headerLength <= bytes.byteCount else { return nil }
        self.bytes = bytes
    }

    /// In bytes, options included: 20 to 60.
    @inlinable public var headerLength: Int { Int(bytes.byte(at: 0) & 15) * 4 }
    /// The whole byte: six bits of DSCP, two of ECN.
    @inlinable public var typeOfService: UInt8 { bytes.byte(at: 1) }
    @inlinable public var totalLength: Int { Int(bytes.big16(at: 2)) }
    @inlinable public var identification: UInt16 { bytes.big16(at: 4) }
    @inlinable public var dontFragment: Bool { bytes.byte(at: 6) & 0x40 != 0 }
    @inlinable public var moreFragments: Bool { bytes.byte(at: 6) & 0x20 != 0 }
    /// In bytes.
    @inlinable public var fragmentOffset: Int { Int(bytes.big16(at: 6) & 0x1FFF) * 8 }
    @inlinable public var ttl: UInt8 { bytes.byte(at: 8) }
    @inlinable public var protocolNumber: UInt8 { bytes.byte(at: 9) }
    @inlinable public var checksum: UInt16 { bytes.big16(at: 10) }
    @inlinable public var source: IPv4Address { IPv4Address(rawValue: bytes.big32(at: 12)) }
    @inlinable public var destination: IPv4Address { IPv4Address(rawValue: bytes.big32(at: 16)) }

    /// The same packet without what stands behind its total length; nil if that is not all there, or less than the header.
    @inlinable public var trimmed: IPv4View? {
        @_lifetime(copy self) get {
            guard totalLength >= headerLength, totalLength <= bytes.byteCount else { return nil }
            return IPv4View(bytes.extracting(first: totalLength))
        }
    }

    @inlinable
    public var upperLayer: UpperLayer {
        UpperLayer(
            protocolNumber: protocolNumber, offset: headerLength, isFragment: moreFragments || fragmentOffset > 0,
            isLaterFragment: fragmentOffset > 0)
    }
}

/// An IPv4 header without options, as values.
public struct IPv4Header: Equatable, Sendable {
    public static let minimumLength = 20

    public var typeOfService: UInt8 = 0
    public var totalLength: UInt16
    public var identification: UInt16 = 0
    public var dontFragment = true
    public var moreFragments = false
    /// In units of 8 bytes, as on the wire.
    public var fragmentOffset: UInt16 = 0
    public var ttl: UInt8 = 64
    public var protocolNumber: UInt8 = ProtocolNumber.ipv6
    public var source: IPv4Address
    public var destination: IPv4Address

    public init(totalLength: UInt16, source: IPv4Address, destination: IPv4Address) {
        self.totalLength = totalLength
        self.source = source
        self.destination = destination
    }

    /// The fields of a header; its options are not kept, its checksum is not checked.
    public init(_ view: borrowing IPv4View) {
        typeOfService = view.typeOfService
        totalLength = UInt16(view.totalLength)
        identification = view.identification
        dontFragment = view.dontFragment
        moreFragments = view.moreFragments
        fragmentOffset = UInt16(view.fragmentOffset / 8)
        ttl = view.ttl
        protocolNumber = view.protocolNumber
        source = view.source
        destination = view.destination
    }

    /// Replaces the type of service of a header that is already written at `offset`, and updates its checksum.
    @inlinable @_lifetime(bytes: copy bytes)
    static func rewrite(typeOfService: UInt8, in bytes: inout MutableRawSpan, at offset: Int) {
        let old = bytes.bytes.big16(at: offset)
        let new = old & 0xFF00 | UInt16(typeOfService)
        if new == old { return }
        let checksum = InternetChecksum.updated(bytes.bytes.big16(at: offset + 10), replacing: old, with: new)
        bytes.put(big: new, at: offset)
        bytes.put(big: checksum, at: offset + 10)
    }

    /// Makes a header of `length` bytes that is already written at `offset` the one of another segment.
    @_lifetime(bytes: copy bytes)
    static func rewrite(totalLength: UInt16, identification: UInt16, in bytes: inout MutableRawSpan, at offset: Int, length: Int)
    {
        bytes.put(big: totalLength, at: offset + 2)
        bytes.put(big: identification, at: offset + 4)
        bytes.put(0 as UInt16, at: offset + 10)
        var sum = InternetChecksum()
        sum.add(bytes.bytes.extracting(offset..<offset + length))
        bytes.put(big: sum.checksum, at: offset + 10)
    }

    /// Writes all 20 bytes, the header checksum included, at `offset`; `bytes` must hold them.
    @_lifetime(bytes: copy bytes)
    public func emit(into bytes: inout MutableRawSpan, at offset: Int = 0) {
        precondition(offset >= 0 && bytes.byteCount - offset >= Self.minimumLength)
        bytes.put(0x45 as UInt8, at: offset)
        bytes.put(typeOfService, at: offset + 1)
        bytes.put(big: totalLength, at: offset + 2)
        bytes.put(big: identification, at: offset + 4)
        let flags: UInt16 = (dontFragment ? 0x4000 : 0) | (moreFragments ? 0x2000 : 0)
        bytes.put(big: flags | fragmentOffset & 0x1FFF, at: offset + 6)
        bytes.put(ttl, at: offset + 8)
        bytes.put(protocolNumber, at: offset + 9)
        bytes.put(0 as UInt16, at: offset + 10)
        bytes.put(big: source.rawValue, at: offset + 12)
        bytes.put(big: destination.rawValue, at: offset + 16)
        var sum = InternetChecksum()
        sum.add(bytes.bytes.extracting(offset..<offset + Self.minimumLength))
        bytes.put(big: sum.checksum, at: offset + 10)
    }
}
