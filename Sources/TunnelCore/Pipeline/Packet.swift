/// Where bytes lie in a worker's packet memory.
public struct Slice: Hashable, Sendable, BitwiseCopyable {
    public var offset: UInt32
    public var length: UInt32

    @inlinable
    public init(offset: Int, length: Int) {
        self.offset = UInt32(truncatingIfNeeded: offset)
        self.length = UInt32(truncatingIfNeeded: length)
    }

    @inlinable public var range: Range<Int> { unsafe Range(uncheckedBounds: (Int(offset), Int(offset) + Int(length))) }
}

/// The fields of the outer IPv4 header that a packet decides; the socket knows the rest.
public struct OuterHeader: Hashable, Sendable, BitwiseCopyable {
    public var destination: IPv4Address
    public var ttl: UInt8
    public var tos: UInt8
    /// 41, or 4.
    public var protocolNumber: UInt8
    /// As the tunnel has it, and for IPv4 inside also as the packet itself has it.
    public var dontFragment: Bool

    @inlinable
    public init(
        destination: IPv4Address, ttl: UInt8, tos: UInt8, protocolNumber: UInt8 = ProtocolNumber.ipv6, dontFragment: Bool = true
    ) {
        self.destination = destination
        self.ttl = ttl
        self.tos = tos
        self.protocolNumber = protocolNumber
        self.dontFragment = dontFragment
    }

    /// For the downlink, where there is none.
    @inlinable static var none: OuterHeader { OuterHeader(destination: .any, ttl: 0, tos: 0) }
}

/// A packet to hand on: a gather list, and on the uplink where it goes.
public struct Frame: Hashable, Sendable, BitwiseCopyable {
    /// Meaningless on the downlink.
    public var outer: OuterHeader
    /// Its slices in `FrameBatch.slices`.
    public var firstSlice: UInt32
    public var sliceCount: UInt32
    /// Packets of the wire that it stands for: more than one if they were merged.
    public var packetCount: UInt32
    /// Bytes of those packets, without outer headers.
    public var innerLength: UInt32

    /// Datagrams that the receiving kernel merged, in one piece.
    @inlinable public var isMergedDatagram: Bool { sliceCount == 1 && packetCount > 1 }

    @inlinable
    public init(outer: OuterHeader, firstSlice: Int, sliceCount: Int, packetCount: Int, innerLength: Int) {
        self.outer = outer
        self.firstSlice = UInt32(truncatingIfNeeded: firstSlice)
        self.sliceCount = UInt32(truncatingIfNeeded: sliceCount)
        self.packetCount = UInt32(truncatingIfNeeded: packetCount)
        self.innerLength = UInt32(truncatingIfNeeded: innerLength)
    }
}

/// What a stage makes of a batch: frames to hand on and packets that are finished with. Its room is allocated once; a stage
/// that finds too little of it left for a packet leaves that packet for the next batch.
public struct FrameBatch: ~Copyable {
    public var frames: FixedList<Frame>
    public var slices: FixedList<Slice>
    /// Dropped packets, by their slice in the batch that came in: their buffers are free again.
    public var dropped: FixedList<Slice>

    /// Where in the packet memory new headers may be written.
    public let scratch: Range<Int>
    @usableFromInline var scratchUsed = 0

    /// - Parameters:
    ///   - packets: of which there may be in one batch.
    ///   - scratch: offsets in the packet memory; may be empty for a stage that makes no headers.
    public init(frames: Int, slices: Int, packets: Int, scratch: Range<Int>) {
        self.frames = FixedList(capacity: frames)
        self.slices = FixedList(capacity: slices)
        dropped = FixedList(capacity: packets)
        self.scratch = scratch
    }

    @inlinable
    public mutating func removeAll() {
        frames.removeAll()
        slices.removeAll()
        dropped.removeAll()
        scratchUsed = 0
    }

    /// Whether so many frames of two slices, with so many bytes of headers, still fit.
    @inlinable
    func hasRoom(frames count: Int, scratch length: Int) -> Bool {
        frames.count &+ count <= frames.capacity && slices.count &+ 2 &* count <= slices.capacity
            && scratchUsed &+ length <= scratch.count
    }

    /// Whether they would fit if the batch were empty.
    @inlinable
    func couldHold(frames count: Int, scratch length: Int) -> Bool {
        count <= frames.capacity && 2 &* count <= slices.capacity && length <= scratch.count
    }

    /// The offset of `length` bytes for headers; there must be room.
    @inlinable
    mutating func takeScratch(_ length: Int) -> Int {
        let offset = scratch.lowerBound &+ scratchUsed
        scratchUsed &+= length
        return offset
    }

    /// Adds a frame of one slice.
    @inlinable
    mutating func append(_ slice: Slice, outer: OuterHeader, innerLength: Int, packetCount: Int = 1) {
        frames.append(
            Frame(outer: outer, firstSlice: slices.count, sliceCount: 1, packetCount: packetCount, innerLength: innerLength))
        slices.append(slice)
    }

    /// Adds a frame of two slices: headers and payload.
    @inlinable
    mutating func append(_ header: Slice, _ payload: Slice, outer: OuterHeader, innerLength: Int) {
        frames.append(
            Frame(outer: outer, firstSlice: slices.count, sliceCount: 2, packetCount: 1, innerLength: innerLength))
        slices.append(header)
        slices.append(payload)
    }
}
