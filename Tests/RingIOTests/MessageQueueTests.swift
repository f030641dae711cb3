import Glibc
import Testing

@testable import RingIO

@Suite struct MessageQueueTests {
    @Test func framesKeepTheirSlices() throws {
        var queue = MessageQueue(frames: 3, slices: 6)
        let memory = try PacketMemory(slotCount: 1)
        let lengths = [[10], [20, 30, 40], [50, 60]]
        for slices in lengths {
            for length in slices { unsafe queue.addSlice(memory.base, length: length) }
            _ = queue.endFrame()
        }
        #expect(queue.inFlight == 3)
        for (frame, slices) in lengths.enumerated() {
            #expect(unsafe queue.vectors(of: frame).map { unsafe $0.iov_len } == slices)
            #expect(unsafe queue.message(of: frame).pointee.msg_iovlen == slices.count)
        }
        // Only after the last completion the room is used again.
        queue.complete()
        queue.complete()
        #expect(queue.count == 3)
        queue.complete()
        #expect(queue.count == 0 && queue.inFlight == 0)
        unsafe queue.addSlice(memory.base, length: 70)
        #expect(queue.endFrame() == 0)
        #expect(unsafe queue.vectors(of: 0).map { unsafe $0.iov_len } == [70])
    }
}
