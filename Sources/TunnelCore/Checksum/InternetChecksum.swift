/// The ones'-complement sum of RFC 1071, gathered over any number of pieces.
///
/// Words are added as the machine reads them, without regard to their byte order: the sum of byte-swapped words is the
/// byte-swapped sum (RFC 1071 section 2 B), so one swap at the end is enough.
public struct InternetChecksum: Sendable {
    /// Native-order 32-bit words added up; 2^32 of them, 16 GiB of data, fit before a carry is lost.
    @usableFromInline var words: UInt64 = 0
    /// Whether an odd number of bytes came so far: the next piece then begins in the middle of a 16-bit word.
    @usableFromInline var isOdd = false

    @inlinable public init() {}

    /// Adds a piece of any length and alignment.
    @inlinable
    public mutating func add(_ bytes: RawSpan) {
        let sum = Self.sum(of: bytes)
        words &+= isOdd ? UInt64(Self.fold(sum).byteSwapped) : Self.foldToWord(sum)
        if bytes.byteCount & 1 != 0 { isOdd.toggle() }
    }

    /// Adds one 16-bit number, given in host order. Only on an even position.
    @inlinable
    public mutating func add(_ value: UInt16) { words &+= UInt64(value.bigEndian) }

    /// Adds one 32-bit number, given in host order. Only on an even position.
    @inlinable
    public mutating func add(_ value: UInt32) { words &+= UInt64(value.bigEndian) }

    /// Adds an IPv6 address. Only on an even position.
    @inlinable
    public mutating func add(_ address: IPv6Address) {
        words &+= Self.foldToWord(address.high.bigEndian)
        words &+= Self.foldToWord(address.low.bigEndian)
    }

    /// Adds the pseudo header of RFC 8200 section 8.1.
    /// - Parameter length: of the upper-layer packet, header included.
    @inlinable
    public mutating func addPseudoHeader(source: IPv6Address, destination: IPv6Address, length: Int, protocolNumber: UInt8) {
        add(source)
        add(destination)
        add(UInt32(truncatingIfNeeded: length))
        add(UInt32(protocolNumber))
    }

    /// Adds the pseudo header of RFC 9293 section 3.1 over IPv4.
    @inlinable
    public mutating func addPseudoHeader(source: IPv4Address, destination: IPv4Address, length: Int, protocolNumber: UInt8) {
        add(source.rawValue)
        add(destination.rawValue)
        add(UInt32(truncatingIfNeeded: length))
        add(UInt32(protocolNumber))
    }

    /// The folded sum, in host order and not complemented: what the kernel leaves in the checksum field of a packet whose
    /// checksum is still to be finished.
    @inlinable
    public var folded: UInt16 { UInt16(bigEndian: Self.fold(words)) }

    /// The value of the checksum field, in host order. Over data that already holds its checksum: 0 if that is right.
    @inlinable
    public var checksum: UInt16 { ~folded }

    /// The field's value for UDP, where 0 would mean "none": 0xFFFF stands for it (RFC 768).
    @inlinable
    public var udpChecksum: UInt16 { checksum == 0 ? 0xFFFF : checksum }

    /// A checksum field's new value after one 16-bit word of the data it covers has changed (RFC 1624 equation 3).
    public static func updated(_ checksum: UInt16, replacing old: UInt16, with new: UInt16) -> UInt16 {
        let sum = UInt32(~checksum) + UInt32(~old) + UInt32(new)
        let once = (sum & 0xFFFF) + (sum >> 16)
        return ~UInt16(truncatingIfNeeded: (once & 0xFFFF) + (once >> 16))
    }

    /// Any sum, reduced to at most 33 bits without changing its value modulo 0xFFFF.
    @inlinable
    static func foldToWord(_ sum: UInt64) -> UInt64 { (sum & 0xFFFF_FFFF) &+ (sum >> 32) }

    @inlinable
    static func fold(_ sum: UInt64) -> UInt16 {
        var sum = foldToWord(foldToWord(sum))  // below 2^32 + 1
        sum = (sum & 0xFFFF) &+ (sum >> 16)
        sum = (sum & 0xFFFF) &+ (sum >> 16)
        sum = (sum & 0xFFFF) &+ (sum >> 16)
        return UInt16(truncatingIfNeeded: sum)
    }

    /// 32-bit words into a 64-bit sum: the form that the compiler turns into vector adds. The tail is padded with zeros.
    @inlinable
    static func sum(of bytes: RawSpan) -> UInt64 {
        var sum: UInt64 = 0
        let count = bytes.byteCount
        for word in 0..<count / 4 { sum &+= UInt64(bytes.native(at: word &* 4, as: UInt32.self)) }
        var offset = count & ~3
        if count & 2 != 0 {
            sum &+= UInt64(bytes.native(at: offset, as: UInt16.self))
            offset &+= 2
        }
        if count & 1 != 0 { sum &+= UInt64(UInt16(bytes.byte(at: offset)).littleEndian) }
        return sum
    }
}
