// RFC 792; the length field is RFC 4884's, the next-hop MTU RFC 1191's.
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  0 |     Type      |     Code      |          Checksum             |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  4 |     unused    |    Length     |         Next-Hop MTU          |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  8 |      Internet Header + leading octets of original datagram    |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

/// The ICMPv4 types a tunnel hears.
public enum ICMPv4Type {
    public static let echoReply: UInt8 = 0
    public static let destinationUnreachable: UInt8 = 3
    public static let sourceQuench: UInt8 = 4
    public static let redirect: UInt8 = 5
    public static let echoRequest: UInt8 = 8
    public static let timeExceeded: UInt8 = 11
    public static let parameterProblem: UInt8 = 12
}

/// An ICMPv4 message whose 8 fixed bytes are whole.
public struct ICMPv4View: ~Escapable {
    public let bytes: RawSpan

    /// nil for fewer than 8 bytes.
    @inlinable @_lifetime(copy bytes)
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= ICMPv4Header.length else { return nil }
        self.bytes = bytes
    }

    @inlinable public var type: UInt8 { bytes.byte(at: 0) }
    @inlinable public var code: UInt8 { bytes.byte(at: 1) }
    @inlinable public var checksum: UInt16 { bytes.big16(at: 2) }
    /// The four bytes whose meaning the type gives.
    @inlinable public var rest: UInt32 { bytes.big32(at: 4) }
    /// Of the quoted datagram, in bytes; 0 without RFC 4884 extensions.
    @inlinable public var quoteLength: Int { Int(bytes.byte(at: 5)) * 4 }
    /// Of a fragmentation-needed message.
    @inlinable public var nextHopMTU: Int { Int(bytes.big16(at: 6)) }
    /// What follows the 8 fixed bytes: in an error the quoted datagram.
    @inlinable public var body: RawSpan {
        @_lifetime(copy self) get { bytes.extracting(ICMPv4Header.length..<bytes.byteCount) }
    }
}

/// The 8 fixed bytes of an ICMPv4 message as values.
public struct ICMPv4Header: Equatable, Sendable {
    public static let length = 8

    public var type: UInt8
    public var code: UInt8
    public var checksum: UInt16 = 0
    public var rest: UInt32 = 0

    public init(type: UInt8, code: UInt8) {
        self.type = type
        self.code = code
    }

    public init(_ view: borrowing ICMPv4View) {
        type = view.type
        code = view.code
        checksum = view.checksum
        rest = view.rest
    }

    /// Writes all 8 bytes at `offset`; `bytes` must hold them.
    @_lifetime(bytes: copy bytes)
    public func emit(into bytes: inout MutableRawSpan, at offset: Int = 0) {
        precondition(offset >= 0 && bytes.byteCount - offset >= Self.length)
        bytes.put(type, at: offset)
        bytes.put(code, at: offset + 1)
        bytes.put(big: checksum, at: offset + 2)
        bytes.put(big: rest, at: offset + 4)
    }
}
