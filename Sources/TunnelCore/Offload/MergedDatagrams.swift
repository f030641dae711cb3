// What a receiving kernel merged must be cut where it was joined, which is known to the kernel only.

/// How many packets of the wire one that was received stands for.
public enum PacketCount: Hashable, Sendable {
    case one
    /// Each but the last has so many bytes of payload.
    case several(of: Int)
    /// What was seen of it is lost.
    case unknown

    /// The payload of each packet but the last in one of `payload` bytes; nil where there are no several.
    @inlinable
    func segmentSize(within payload: Int) -> Int? {
        guard case .several(let size) = self, size > 0, size < payload else { return nil }
        return size
    }
}

/// Who saw what the kernel knows of a packet.
public protocol MergeWitness: AnyObject, Sendable {
    /// Packets of a new batch were received.
    /// - Returns: whether any may have been merged; else none is asked about.
    func beginBatch() -> Bool
    /// - Parameter packet: as the raw socket handed it over, IPv4 header first. Each of the batch is asked about once.
    func count(of packet: RawSpan) -> PacketCount
    /// No packet that was received so far will be asked about any more. Called after a batch that was asked about.
    func endBatch()
}

extension VirtioNetHeader {
    /// Packets of the wire in one of `length` bytes with this header, and their bytes in all.
    func packets(in length: Int) -> (count: Int, length: Int) {
        guard segmentation == .udp, segmentSize > 0, length > Int(headerLength) else { return (1, length) }
        let payload = length - Int(headerLength)
        let count = (payload + Int(segmentSize) - 1) / Int(segmentSize)
        return (count, payload + count * Int(headerLength))
    }
}

/// Takes a merged datagram apart in place, for a TUN that does not cut UDP (before Linux 6.2). The headers move along: each
/// datagram's are written over the end of the one before, which must be gone by then.
public struct DatagramCutter {
    private let virtio: VirtioNetHeader
    /// Where the headers of the next datagram are, still as they were in the one before, and where the packet ends.
    private var offset: Int
    private let end: Int
    private var isFirst = true

    /// - Parameter frame: a merged datagram behind the virtio-net header that asks for the cut.
    /// - Returns: nil for anything else.
    public init?(_ frame: Slice, in memory: RawSpan) {
        guard let view = VirtioNetView(memory.extracting(frame.range)), view.segmentation == .udp, view.segmentSize > 0 else {
            return nil
        }
        virtio = VirtioNetHeader(view)
        offset = Int(frame.offset) + VirtioNetHeader.length
        end = frame.range.upperBound
        if Int(virtio.checksumStart) + UDPHeader.length != Int(virtio.headerLength) || offset + Int(virtio.headerLength) > end {
            return nil
        }
    }

    /// Prepares the next datagram.
    /// - Returns: it, behind its virtio-net header; nil when there is none left.
    @_lifetime(memory: copy memory)
    public mutating func next(in memory: inout MutableRawSpan) -> Slice? {
        let headers = Int(virtio.headerLength)
        let step = Int(virtio.segmentSize)
        if !isFirst {
            guard offset + headers + step < end else { return nil }
            for index in (0..<headers).reversed() {
                memory.put(memory.bytes.byte(at: offset + index), at: offset + step + index)
            }
            offset += step
        }
        let length = min(headers + step, end - offset)
        let udp = offset + Int(virtio.checksumStart)
        if memory.bytes.byte(at: offset) >> 4 == 6 {
            memory.put(big: UInt16(truncatingIfNeeded: length - IPv6Header.length), at: offset + 4)
        } else {
            let identification = memory.bytes.big16(at: offset + 4) &+ (isFirst ? 0 : 1)
            IPv4Header.rewrite(
                totalLength: UInt16(truncatingIfNeeded: length), identification: identification, in: &memory, at: offset,
                length: Int(memory.bytes.byte(at: offset) & 0xF) * 4)
        }
        // The pseudo header's sum holds the length: the new one goes in for the old one.
        let oldLength = memory.bytes.big16(at: udp + 4)
        let newLength = UInt16(truncatingIfNeeded: length - Int(virtio.checksumStart))
        var sum = InternetChecksum()
        sum.add(UInt32(memory.bytes.big16(at: udp + UDPHeader.checksumOffset)))
        sum.add(UInt32(~oldLength))
        sum.add(UInt32(newLength))
        memory.put(big: newLength, at: udp + 4)
        memory.put(big: sum.folded, at: udp + UDPHeader.checksumOffset)

        var alone = VirtioNetHeader()
        alone.needsChecksum = true
        alone.checksumStart = virtio.checksumStart
        alone.checksumOffset = virtio.checksumOffset
        alone.emit(into: &memory, at: offset - VirtioNetHeader.length)
        isFirst = false
        return Slice(offset: offset - VirtioNetHeader.length, length: length + VirtioNetHeader.length)
    }
}
