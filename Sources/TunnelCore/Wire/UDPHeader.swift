// RFC 768
//
//     0      7 8     15 16    23 24    31
//    +--------+--------+--------+--------+
//  0 |   Source Port   | Destination Port|
//    +--------+--------+--------+--------+
//  4 |     Length      |    Checksum     |
//    +--------+--------+--------+--------+

/// A UDP datagram whose header is whole.
public struct UDPView: ~Escapable {
    public let bytes: RawSpan

    /// nil for fewer than 8 bytes.
    @inlinable @_lifetime(copy bytes)
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= UDPHeader.length else { return nil }
        self.bytes = bytes
    }

    @inlinable public var sourcePort: UInt16 { bytes.big16(at: 0) }
    @inlinable public var destinationPort: UInt16 { bytes.big16(at: 2) }
    /// Header and payload.
    @inlinable public var length: Int { Int(bytes.big16(at: 4)) }
    /// 0: the sender computed none.
    @inlinable public var checksum: UInt16 { bytes.big16(at: 6) }
}

/// A UDP header as values.
public struct UDPHeader: Equatable, Sendable {
    public static let length = 8
    /// Where the length stands.
    public static let lengthOffset = 4
    /// Where the checksum stands.
    public static let checksumOffset = 6

    public var sourcePort: UInt16
    public var destinationPort: UInt16
    /// Header and payload.
    public var length: UInt16
    public var checksum: UInt16 = 0

    public init(sourcePort: UInt16, destinationPort: UInt16, length: UInt16) {
        self.sourcePort = sourcePort
        self.destinationPort = destinationPort
        self.length = length
    }

    public init(_ view: borrowing UDPView) {
        sourcePort = view.sourcePort
        destinationPort = view.destinationPort
        length = UInt16(view.length)
        checksum = view.checksum
    }

    /// Writes all 8 bytes to the start of `bytes`, which must hold them.
    @_lifetime(bytes: copy bytes)
    public func emit(into bytes: inout MutableRawSpan) {
        precondition(bytes.byteCount >= Self.length)
        bytes.put(big: sourcePort, at: 0)
        bytes.put(big: destinationPort, at: 2)
        bytes.put(big: length, at: 4)
        bytes.put(big: checksum, at: 6)
    }
}
