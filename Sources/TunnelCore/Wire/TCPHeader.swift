// RFC 9293 section 3.1
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  0 |          Source Port          |       Destination Port        |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  4 |                        Sequence Number                        |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  8 |                    Acknowledgment Number                      |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |  Data |       |C|E|U|A|P|R|S|F|                               |
// 12 | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//    |       |       |R|E|G|K|H|T|N|N|                               |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// 16 |           Checksum            |         Urgent Pointer        |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// 20 |                           [Options]                           |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

/// The control bits of a TCP header.
public struct TCPFlags: OptionSet, Hashable, Sendable, BitwiseCopyable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let fin = TCPFlags(rawValue: 0x01)
    public static let syn = TCPFlags(rawValue: 0x02)
    public static let rst = TCPFlags(rawValue: 0x04)
    public static let psh = TCPFlags(rawValue: 0x08)
    public static let ack = TCPFlags(rawValue: 0x10)
    public static let urg = TCPFlags(rawValue: 0x20)
    /// RFC 3168
    public static let ece = TCPFlags(rawValue: 0x40)
    /// RFC 3168
    public static let cwr = TCPFlags(rawValue: 0x80)
}

/// Option kinds of RFC 9293 section 3.1; the first two are a single byte, all others have their length behind the kind.
public enum TCPOption {
    public static let endOfList: UInt8 = 0
    public static let noOperation: UInt8 = 1
    /// Length 4.
    public static let maximumSegmentSize: UInt8 = 2
}

/// A TCP segment whose header, options included, is whole.
public struct TCPView: ~Escapable {
    public let bytes: RawSpan

    /// nil unless the data offset is at least 5 words and within `bytes`.
    @inlinable @_lifetime(copy bytes)
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= TCPHeader.minimumLength else { return nil }
        let headerLength = Int(bytes.byte(at: 12) >> 4) * 4
        guard headerLength >= TCPHeader.minimumLength, headerLength <= bytes.byteCount else { return nil }
        self.bytes = bytes
    }

    @inlinable public var sourcePort: UInt16 { bytes.big16(at: 0) }
    @inlinable public var destinationPort: UInt16 { bytes.big16(at: 2) }
    @inlinable public var sequenceNumber: UInt32 { bytes.big32(at: 4) }
    @inlinable public var acknowledgmentNumber: UInt32 { bytes.big32(at: 8) }
    /// The data offset in bytes, options included: 20 to 60.
    @inlinable public var headerLength: Int { Int(bytes.byte(at: 12) >> 4) * 4 }
    @inlinable public var flags: TCPFlags { TCPFlags(rawValue: bytes.byte(at: 13)) }
    @inlinable public var window: UInt16 { bytes.big16(at: 14) }
    @inlinable public var checksum: UInt16 { bytes.big16(at: 16) }
    @inlinable public var urgentPointer: UInt16 { bytes.big16(at: 18) }
    @inlinable public var options: RawSpan {
        @_lifetime(copy self) get { bytes.extracting(TCPHeader.minimumLength..<headerLength) }
    }
}

/// A TCP header without options, as values.
public struct TCPHeader: Equatable, Sendable {
    public static let minimumLength = 20
    /// Where the checksum stands.
    public static let checksumOffset = 16

    public var sourcePort: UInt16
    public var destinationPort: UInt16
    public var sequenceNumber: UInt32 = 0
    public var acknowledgmentNumber: UInt32 = 0
    /// In bytes, a multiple of 4; more than 20 where the caller writes options behind the emitted header.
    public var headerLength = 20
    public var flags: TCPFlags = []
    public var window: UInt16 = 0
    public var checksum: UInt16 = 0
    public var urgentPointer: UInt16 = 0

    public init(sourcePort: UInt16, destinationPort: UInt16) {
        self.sourcePort = sourcePort
        self.destinationPort = destinationPort
    }

    public init(_ view: borrowing TCPView) {
        sourcePort = view.sourcePort
        destinationPort = view.destinationPort
        sequenceNumber = view.sequenceNumber
        acknowledgmentNumber = view.acknowledgmentNumber
        headerLength = view.headerLength
        flags = view.flags
        window = view.window
        checksum = view.checksum
        urgentPointer = view.urgentPointer
    }

    /// Writes the 20 fixed bytes to the start of `bytes`, which must hold them.
    @_lifetime(bytes: copy bytes)
    public func emit(into bytes: inout MutableRawSpan) {
        precondition(bytes.byteCount >= Self.minimumLength)
        bytes.put(big: sourcePort, at: 0)
        bytes.put(big: destinationPort, at: 2)
        bytes.put(big: sequenceNumber, at: 4)
        bytes.put(big: acknowledgmentNumber, at: 8)
        bytes.put(UInt8(truncatingIfNeeded: headerLength / 4) << 4, at: 12)
        bytes.put(flags.rawValue, at: 13)
        bytes.put(big: window, at: 14)
        bytes.put(big: checksum, at: 16)
        bytes.put(big: urgentPointer, at: 18)
    }
}
