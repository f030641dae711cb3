// virtio 1.2 section 5.1.6, as <linux/virtio_net.h> struct virtio_net_hdr; a TUN with IFF_VNET_HDR puts it before each
// packet, in the machine's own byte order.
//
//   offset  0  flags        1 byte    NEEDS_CSUM
//           1  gso_type     1 byte    what to segment, 0 for nothing
//           2  hdr_len      2 bytes   all headers, a hint that must not be trusted
//           4  gso_size     2 bytes   payload bytes of a segment
//           6  csum_start   2 bytes   from the packet's first byte
//           8  csum_offset  2 bytes   from csum_start to the checksum field

/// The 10 bytes in front of each packet of the TUN.
public struct VirtioNetView: ~Escapable {
    public let bytes: RawSpan

    /// nil for fewer than 10 bytes.
    @inlinable @_lifetime(copy bytes)
    public init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= VirtioNetHeader.length else { return nil }
        self.bytes = bytes
    }

    @inlinable public var needsChecksum: Bool { bytes.byte(at: 0) & VirtioNetHeader.needsChecksumFlag != 0 }
    /// Without the ECN bit.
    @inlinable public var segmentation: VirtioNetHeader.Segmentation {
        VirtioNetHeader.Segmentation(rawValue: bytes.byte(at: 1) & ~VirtioNetHeader.ecnFlag)
    }
    @inlinable public var hasECN: Bool { bytes.byte(at: 1) & VirtioNetHeader.ecnFlag != 0 }
    @inlinable public var headerLength: Int { Int(bytes.native(at: 2, as: UInt16.self)) }
    @inlinable public var segmentSize: Int { Int(bytes.native(at: 4, as: UInt16.self)) }
    @inlinable public var checksumStart: Int { Int(bytes.native(at: 6, as: UInt16.self)) }
    @inlinable public var checksumOffset: Int { Int(bytes.native(at: 8, as: UInt16.self)) }
    /// One whole packet with nothing left to do, as most are. That the kernel may also say its checksum was verified
    /// (DATA_VALID, on packets it forwards) is no request.
    @inlinable public var asksForNothing: Bool { !needsChecksum && bytes.byte(at: 1) == 0 }
}

/// The virtio-net header as values; the default is a plain packet.
public struct VirtioNetHeader: Equatable, Sendable, BitwiseCopyable {
    public static let length = 10
    @usableFromInline static let needsChecksumFlag: UInt8 = 1
    @usableFromInline static let ecnFlag: UInt8 = 0x80

    /// VIRTIO_NET_HDR_GSO_*
    public struct Segmentation: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
        public var rawValue: UInt8
        @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
        public static let none = Segmentation(rawValue: 0)
        public static let tcp4 = Segmentation(rawValue: 1)
        public static let tcp6 = Segmentation(rawValue: 4)
        /// UDP_L4: equal datagrams, not fragments
        public static let udp = Segmentation(rawValue: 5)
    }

    /// The checksum field holds the folded pseudo-header sum; the rest is for whoever sends the packet on.
    public var needsChecksum = false
    public var segmentation = Segmentation.none
    /// The first segment alone carries CWR (RFC 3168 section 6.1.2).
    public var hasECN = false
    public var headerLength: UInt16 = 0
    public var segmentSize: UInt16 = 0
    public var checksumStart: UInt16 = 0
    public var checksumOffset: UInt16 = 0

    @inlinable public init() {}

    public init(_ view: borrowing VirtioNetView) {
        needsChecksum = view.needsChecksum
        segmentation = view.segmentation
        hasECN = view.hasECN
        headerLength = UInt16(view.headerLength)
        segmentSize = UInt16(view.segmentSize)
        checksumStart = UInt16(view.checksumStart)
        checksumOffset = UInt16(view.checksumOffset)
    }

    /// Writes all 10 bytes at `offset`; `bytes` must hold them.
    @inlinable @_lifetime(bytes: copy bytes)
    public func emit(into bytes: inout MutableRawSpan, at offset: Int = 0) {
        precondition(offset >= 0 && bytes.byteCount - offset >= Self.length)
        bytes.put(needsChecksum ? Self.needsChecksumFlag : 0, at: offset)
        bytes.put(segmentation.rawValue | (hasECN ? Self.ecnFlag : 0), at: offset + 1)
        bytes.put(headerLength, at: offset + 2)
        bytes.put(segmentSize, at: offset + 4)
        bytes.put(checksumStart, at: offset + 6)
        bytes.put(checksumOffset, at: offset + 8)
    }
}
