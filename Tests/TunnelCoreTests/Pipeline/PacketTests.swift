import Testing
import TunnelCore

@Suite struct PacketTests {
    @Test(arguments: [(0, 0, 0..<0), (10, 0, 10..<10), (10, 48, 10..<58), (1 << 31, 65535, 1 << 31..<(1 << 31) + 65535)])
    func slicesAreRanges(offset: Int, length: Int, range: Range<Int>) {
        #expect(Slice(offset: offset, length: length).range == range)
    }

    @Test func aBatchIsEmptiedWhole() {
        var batch = FrameBatch(frames: 2, slices: 4, packets: 3, scratch: 64..<96)
        batch.frames.append(
            Frame(
                outer: OuterHeader(destination: v4("10.0.0.1"), ttl: 1, tos: 2), firstSlice: 0, sliceCount: 1, packetCount: 1,
                innerLength: 40))
        batch.slices.append(Slice(offset: 0, length: 40))
        batch.dropped.append(Slice(offset: 40, length: 40))
        batch.removeAll()
        let counts = [batch.frames.count, batch.slices.count, batch.dropped.count]
        let capacities = [batch.frames.capacity, batch.slices.capacity, batch.dropped.capacity]
        #expect(counts == [0, 0, 0])
        #expect(capacities == [2, 4, 3])
    }
}
