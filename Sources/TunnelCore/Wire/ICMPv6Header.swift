// RFC 4443 section 2.1; the length field is RFC 4884's, the MTU section 3.2's.
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  0 |     Type      |     Code      |          Checksum             |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  4 |       MTU (type 2), or length (RFC 4884), or id and sequence  |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  8 |                     Message body                              |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

/// The ICMPv6 types a tunnel hears and sends.
public enum ICMPv6Type {
    public static let destinationUnreachable: UInt8 = 1
    public static let packetTooBig: UInt8 = 2
    public static let timeExceeded: UInt8 = 3
    public static let parameterProblem: UInt8 = 4
    public static let echoRequest: UInt8 = 128
    public static let echoReply: UInt8 = 129
    public static let routerAdvertisement: UInt8 = 134
    public static let redirect: UInt8 = 137
}

/// An ICMPv6 message whose 8 fixed bytes are whole.
public struct ICMPv6View: ~Escapable {
    public let bytes: RawSpan

    /// nil for fewer than 8 bytes.
    @inlinable @_lifetime(copy bytes)
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= ICMPv6Header.length else { return nil }
        self.bytes = bytes
    }

    @inlinable public var type: UInt8 { bytes.byte(at: 0) }
    @inlinable public var code: UInt8 { bytes.byte(at: 1) }
    @inlinable public var checksum: UInt16 { bytes.big16(at: 2) }
    /// The four bytes whose meaning the type gives: a packet-too-big's MTU, an echo's identifier and sequence number.
    @inlinable public var rest: UInt32 { bytes.big32(at: 4) }
    /// Types below 128 report errors, and no error answers an error (section 2.4 e).
    @inlinable public var isError: Bool { type < 128 }
    /// What follows the 8 fixed bytes: in an error the quoted packet.
    @inlinable public var body: RawSpan {
        @_lifetime(copy self) get { bytes.extracting(ICMPv6Header.length..<bytes.byteCount) }
    }
}

/// The 8 fixed bytes of an ICMPv6 message as values.
public struct ICMPv6Header: Equatable, Sendable {
    public static let length = 8
    /// Where the checksum stands.
    public static let checksumOffset = 2

    public var type: UInt8
    public var code: UInt8
    public var checksum: UInt16 = 0
    public var rest: UInt32 = 0

    public init(type: UInt8, code: UInt8) {
        self.type = type
        self.code = code
    }

    public init(_ view: borrowing ICMPv6View) {
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
