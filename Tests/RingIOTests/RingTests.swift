import CLiburing
import CLinux
import Glibc
import Testing

@testable import RingIO

@Suite struct RingTests {
    /// Where io_uring is switched off there is nothing to test, and the test says so.
    static let isAvailable: Bool = (try? Ring(entries: 2, completions: 4)) != nil

    @Test(.enabled(if: isAvailable, "io_uring is not available here"))
    func whatIsSubmittedCompletes() throws {
        let ring = try Ring(entries: 2, completions: 16)
        try ring.enable()
        // More than fit into the queue at once.
        for number: UInt64 in 1...5 {
            let entry = unsafe ring.next()
            unsafe io_uring_prep_nop(entry)
            unsafe entry.pointee.user_data = number
        }
        var seen: [UInt64] = []
        while seen.count < 5 {
            try ring.submitAndWait()
            while let completion = ring.takeCompletion() { seen.append(completion.userData) }
        }
        #expect(seen == [1, 2, 3, 4, 5])
    }

    /// A multishot receive fills slot after slot; when none is left it ends, and goes on when one came back.
    @Test(.enabled(if: isAvailable, "io_uring is not available here"))
    func providedBuffersGoRound() throws {
        let ring = try Ring(entries: 8, completions: 32)
        let memory = try PacketMemory(slotCount: 2)
        var buffers = try BufferRing(group: 7, entries: 2, in: ring)
        buffers.add(0, of: memory)
        buffers.add(1, of: memory)
        buffers.publish()
        #expect(buffers.available == 2)
        try ring.enable()
        var ends: [Int32] = [0, 0]
        try #require(unsafe socketpair(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0, &ends) == 0)
        defer { for end in ends { close(end) } }

        func arm() {
            let entry = unsafe ring.next()
            unsafe io_uring_prep_recv_multishot(entry, ends[1], nil, 0, 0)
            unsafe entry.pointee.flags |= tund_sqe_buffer_select
            unsafe entry.pointee.buf_group = 7
        }
        arm()
        for byte: UInt8 in [1, 2, 3] { _ = unsafe send(ends[0], [byte, byte], 2, 0) }
        var seen: [(slot: Int, byte: UInt8)] = []
        var endedFor: Int32 = 0
        while endedFor == 0 {
            try ring.submitAndWait()
            while let completion = ring.takeCompletion() {
                if completion.result >= 0 {
                    #expect(completion.result == 2)
                    let first = unsafe memory.address(ofSlot: completion.buffer).load(as: UInt8.self)
                    seen.append((completion.buffer, first))
                    buffers.took()
                }
                if !completion.hasMore { endedFor = completion.result }
            }
        }
        #expect(seen.map(\.byte) == [1, 2])
        #expect(Set(seen.map(\.slot)) == [0, 1])
        #expect(endedFor == -ENOBUFS && buffers.available == 0)

        buffers.add(1, of: memory)
        buffers.publish()
        arm()
        try ring.submitAndWait()
        let completion = ring.takeCompletion()
        #expect(completion?.buffer == 1)
        #expect(unsafe memory.address(ofSlot: 1).load(as: UInt8.self) == 3)
        ring.quiesce()
    }
}
