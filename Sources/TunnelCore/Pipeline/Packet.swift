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

    @inlinable
    public init(destination: IPv4Address, ttl: UInt8, tos: UInt8) {
        self.destination = destination
        self.ttl = ttl
        self.tos = tos
    }
}

/// A packet to hand on: a gather list, and on the uplink where it goes.
public struct Frame: Hashable, Sendable, BitwiseCopyable {
    /// Meaningless on the downlink.
    public var outer: OuterHeader
    /// Its slices in `FrameBatch.slices`.
    public var firstSlice: UInt32
    public var sliceCount: UInt32
    /// Bytes of the inner packet.
    public var innerLength: UInt32

    @inlinable
    public init(outer: OuterHeader, firstSlice: Int, sliceCount: Int, innerLength: Int) {
        self.outer = outer
        self.firstSlice = UInt32(truncatingIfNeeded: firstSlice)
        self.sliceCount = UInt32(truncatingIfNeeded: sliceCount)
        self.innerLength = UInt32(truncatingIfNeeded: innerLength)
    }
}

/// What a stage makes of a batch: frames to hand on and packets that are finished with. Its room is allocated once.
public struct FrameBatch: ~Copyable {
    public var frames: FixedList<Frame>
    public var slices: FixedList<Slice>
    /// Dropped packets, by their slice in the batch that came in: their buffers are free again.
    public var dropped: FixedList<Slice>

    public init(frames: Int, slices: Int) {
        self.frames = FixedList(capacity: frames)
        self.slices = FixedList(capacity: slices)
        dropped = FixedList(capacity: frames)
    }

    @inlinable
    public mutating func removeAll() {
        frames.removeAll()
        slices.removeAll()
        dropped.removeAll()
    }

    /// Adds a frame of one slice.
    @inlinable
    mutating func append(_ slice: Slice, outer: OuterHeader, innerLength: Int) {
        frames.append(Frame(outer: outer, firstSlice: slices.count, sliceCount: 1, innerLength: innerLength))
        slices.append(slice)
    }
}
