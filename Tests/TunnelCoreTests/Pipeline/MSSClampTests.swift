import Testing
import TunnelCore

@Suite struct MSSClampTests {
    static let limit: UInt16 = 1220

    /// A SYN with these options, from the peer to us; scapy's order of options is in the namespace tests.
    static func syn(_ options: [UInt8], flags: UInt8 = 0x02, payload: [UInt8] = [], _ checksum: Transport.Field = .finished)
        -> [UInt8]
    {
        var segment = Transport()
        (segment.flags, segment.options, segment.payload, segment.checksum) = (flags, options, payload, checksum)
        return segment.bytes
    }

    static func mss(_ size: UInt16) -> [UInt8] { [2, 4] + Packets.bytes(size) }
    static let windowScale: [UInt8] = [3, 3, 7]
    static let sackPermitted: [UInt8] = [4, 2]
    static let nop: UInt8 = 1
    static let end: UInt8 = 0

    /// Options before and after, whatever the direction.
    struct Row: CustomTestStringConvertible {
        let name: String
        let before: [UInt8]
        let after: [UInt8]
        var flags: UInt8 = 0x02
        var payload: [UInt8] = []
        var testDescription: String { name }

        init(_ name: String, _ before: [UInt8], becomes after: [UInt8]? = nil, flags: UInt8 = 0x02, payload: [UInt8] = []) {
            (self.name, self.before, self.after) = (name, before, after ?? before)
            (self.flags, self.payload) = (flags, payload)
        }
    }

    static let rows = [
        Row("SYN", mss(1440), becomes: mss(limit)),
        Row("SYN and ACK", mss(1440), becomes: mss(limit), flags: 0x12),
        Row("SYN with ECN's flags", mss(1440), becomes: mss(limit), flags: 0xC2),
        Row("SYN with data", mss(1440), becomes: mss(limit), payload: Array("early".utf8)),
        Row("one more than the limit", mss(1221), becomes: mss(limit)),
        Row("the limit", mss(1220)),
        Row("less", mss(536)),
        Row("none", mss(0)),
        Row("no end to it (RFC 2675)", mss(0xFFFF), becomes: mss(limit)),
        Row(
            "behind other options", [nop, nop] + sackPermitted + mss(1440), becomes: [nop, nop] + sackPermitted + mss(limit)),
        Row("before other options", mss(1440) + windowScale + [nop], becomes: mss(limit) + windowScale + [nop]),
        Row(
            "on an odd offset", [nop] + mss(1440) + windowScale, becomes: [nop] + mss(limit) + windowScale),
        Row(
            "on an odd offset behind a long option", windowScale + mss(0x1234) + [end], becomes: windowScale + mss(limit) + [end]),
        Row(
            "the end of 40 bytes", [UInt8](repeating: nop, count: 36) + mss(9000),
            becomes: .init(repeating: nop, count: 36) + mss(limit)),
        Row("twice: hosts differ in which they take", mss(1440) + mss(1500), becomes: mss(limit) + mss(limit)),

        Row("no SYN", mss(1440), flags: 0x10),
        Row("no options", []),
        Row("no such option", windowScale + [nop]),
        Row("behind the end of the list", [end, nop, nop, nop] + mss(1440)),
        Row("inside another option", [254, 8] + mss(1440) + [nop, nop]),
        Row("an option of length 0 before it", [8, 0, nop, nop] + mss(1440)),
        Row("an option of length 1 before it", [8, 1, nop, nop] + mss(1440)),
        Row("an option past the end before it", [8, 12, nop, nop] + mss(1440)),
        Row("of length 3", [2, 3, 5, nop] + [2, 5, 5, 160, nop, nop, nop, nop]),
        Row("its length cut off", [nop, nop, nop, 2]),
        Row("its size cut off", [nop, nop, 2, 4]),
        Row("half of its size cut off", [nop, 2, 4, 5]),
    ]

    static var policy: TunnelPolicy {
        var policy = Policies.remote
        policy.mssClamp = MSSClamp(limit)
        return policy
    }

    /// What a packet from the host is on the wire, without the outer header.
    static func uplink(_ packet: [UInt8], _ virtio: VirtioNetHeader = VirtioNetHeader(), policy: TunnelPolicy = policy) -> [UInt8]
    {
        var memory = written(10, over: 0) { virtio.emit(into: &$0) } + packet
        var batch = FixedList<Slice>(capacity: 1)
        batch.append(Slice(offset: 0, length: memory.count))
        var frames = FrameBatch(frames: 1, slices: 2, packets: 1, scratch: 0..<0)
        var counters = Counters()
        var next = 0
        memory.withMutableRaw { policy.encapsulate(batch, from: &next, in: &$0, into: &frames, counters: &counters) }
        return frames.frames.count == 1 ? Array(memory[frames.slices[0].range]) : []
    }

    /// What the host gets of a packet from the wire, and the virtio-net header before it.
    static func downlink(_ packet: [UInt8], policy: TunnelPolicy = policy) -> (virtio: [UInt8], packet: [UInt8]) {
        var memory = Packets.outer("198.51.100.7", "192.0.2.1", packet)
        var batch = FixedList<Slice>(capacity: 1)
        batch.append(Slice(offset: 0, length: memory.count))
        var frames = FrameBatch(frames: 1, slices: 1, packets: 1, scratch: 0..<0)
        var counters = Counters()
        var merge = ReceiveMerge(capacity: 1, isOn: true)
        memory.withMutableRaw { policy.decapsulate(batch, in: &$0, merge: &merge, into: &frames, counters: &counters) }
        guard frames.frames.count == 1 else { return ([], []) }
        let delivered = Array(memory[frames.slices[0].range])
        return (Array(delivered[..<10]), Array(delivered[10...]))
    }

    @Test(arguments: rows)
    func finishedChecksumsFollow(row: Row) {
        let before = Self.syn(row.before, flags: row.flags, payload: row.payload)
        let after = Self.syn(row.after, flags: row.flags, payload: row.payload)
        #expect(Self.uplink(before) == after)
        let delivered = Self.downlink(before)
        #expect(delivered.packet == after)
        #expect(delivered.virtio == [UInt8](repeating: 0, count: 10))
    }

    @Test(arguments: rows)
    func unfinishedChecksumsStayUnfinished(row: Row) {
        let before = Self.syn(row.before, flags: row.flags, payload: row.payload, .unfinished)
        let after = Self.syn(row.after, flags: row.flags, payload: row.payload, .unfinished)
        let delivered = Self.downlink(before)
        #expect(delivered.packet == after)
        #expect(delivered.virtio[0] == 1)
        // The TUN's are finished on their way out.
        var virtio = VirtioNetHeader()
        (virtio.needsChecksum, virtio.checksumStart, virtio.checksumOffset) = (true, 40, 16)
        #expect(Self.uplink(before, virtio) == Self.syn(row.after, flags: row.flags, payload: row.payload))
    }

    @Test func wrongChecksumsStayWrong() {
        let before = Self.syn(Self.mss(1440), .wrong)
        for after in [Self.uplink(before), Self.downlink(before).packet] {
            #expect(Array(after[60...]) == Self.mss(Self.limit))
            #expect(Self.sum(after) == Self.sum(before))
        }
    }

    /// A segment right behind these extension headers, its checksum right.
    static func syn(behind extensions: [UInt8], next: UInt8, _ options: [UInt8]) -> [UInt8] {
        let segment = syn(options)
        return Packets.inner(
            "2001:db8:64c8:200::2", "2001:db8:6464:100::1", next: next, payload: extensions + segment[40...])
    }

    @Test(arguments: [
        ("hop-by-hop", UInt8(0), Packets.extensionHeader(next: 6), true),
        ("first fragment", 44, Packets.fragmentHeader(next: 6, more: true), true),
        ("atomic fragment", 44, Packets.fragmentHeader(next: 6, more: false), true),
        ("later fragment: data that looks like it", 44, Packets.fragmentHeader(next: 6, offset: 3, more: false), false),
        ("routing with a segment left", 43, [6, 0, 0, 1, 0, 0, 0, 0], true),
        ("UDP", 17, [], false),
    ])
    func behindOtherHeaders(name: String, next: UInt8, extensions: [UInt8], isLowered: Bool) {
        let before = Self.syn(behind: extensions, next: next, Self.mss(1440))
        let after = isLowered ? Self.syn(behind: extensions, next: next, Self.mss(Self.limit)) : before
        #expect(Self.uplink(before) == after)
        #expect(Self.downlink(before).packet == after)
    }

    @Test func offIsTheDefaultAndChangesNothing() {
        for row in Self.rows {
            let packet = Self.syn(row.before, flags: row.flags)
            #expect(Self.uplink(packet, policy: Policies.remote) == packet)
            #expect(Self.downlink(packet, policy: Policies.remote).packet == packet)
        }
    }

    @Test(arguments: [(1280, UInt16(1220)), (1480, 1420), (65515, 65455)])
    func anMTULeavesRoomForHeadersWithoutOptions(mtu: Int, limit: UInt16) {
        var policy = Policies.remote
        policy.mssClamp = MSSClamp(mtu: mtu)
        for size in [limit, limit + 1, 65535] {
            #expect(Self.uplink(Self.syn(Self.mss(size)), policy: policy) == Self.syn(Self.mss(limit)))
        }
    }

    // Whatever the options and the length of the header: nothing but sizes above the limit and the checksum changes.
    @Test func anyBytesAreSafe() {
        var random = SeededGenerator(seed: 19)
        var lowered = 0
        for _ in 0..<5000 {
            var options = random.bytes(Int.random(in: 0...10, using: &random) * 4)
            for index in options.indices where random.next() % 2 == 0 {
                options[index] = [0, 1, 1, 2, 2, 4, 4, 4].randomElement(using: &random)!
            }
            var packet = Self.syn(options)
            if random.next() % 4 == 0 { packet[52] = UInt8.random(in: 0...255, using: &random) }
            let wasRight = Self.isRight(packet)
            let after = Self.uplink(packet)
            #expect(after.count == packet.count)
            #expect(Self.isRight(after) == wasRight)
            if after != packet { lowered += 1 }
            for index in packet.indices where index < 56 || index >= 60 + options.count {
                if after[index] != packet[index] { Issue.record("byte \(index) of \(packet)") }
            }
        }
        #expect(lowered > 50)
    }

    private static func isRight(_ packet: [UInt8]) -> Bool { sum(packet) == 0xFFFF }

    private static func sum(_ packet: [UInt8]) -> UInt16 {
        let pseudo = NaiveChecksum.pseudoHeader(
            addresses: packet[8..<40], length: packet.count - 40, protocolNumber: packet[6])
        return NaiveChecksum.sum(pseudo + packet[40...])
    }
}
