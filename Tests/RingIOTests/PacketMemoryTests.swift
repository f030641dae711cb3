import Testing

@testable import RingIO

@Suite struct PacketMemoryTests {
    /// IPv6 header and the longest payload, behind a virtio-net header; and the longest IPv4 packet.
    @Test(arguments: [10 + 40 + 65535, 65535])
    func aSlotHoldsTheLongestPacket(length: Int) {
        #expect(PacketMemory.slotSize > length)
    }

    @Test func offsetsLeadToTheirSlot() throws {
        let memory = try PacketMemory(slotCount: 3)
        #expect(memory.bytes.byteCount == 3 * PacketMemory.slotSize)
        for slot in 0..<3 {
            let start = slot * PacketMemory.slotSize
            #expect(PacketMemory.slot(at: start) == slot)
            #expect(PacketMemory.slot(at: start + PacketMemory.slotSize - 1) == slot)
        }
    }
}
