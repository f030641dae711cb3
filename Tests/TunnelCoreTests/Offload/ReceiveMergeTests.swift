import Testing
import TunnelCore

/// What arrives together and what the TUN gets for it, through the batch function of the downlink.
@Suite struct ReceiveMergeTests {
    static let (peer, us) = ("2001:db8:64c8:200::2", "2001:db8:6464:100::1")

    static func outer(_ inner: [UInt8], tos: UInt8 = 0, options: [UInt8] = []) -> [UInt8] {
        Packets.outer("10.100.200.2", "10.100.100.1", inner, tos: tos, options: options)
    }

    @Test(.enabled(if: UInt16(littleEndian: 1) == 1), arguments: MergeVector.all)
    func vectors(vector: MergeVector) {
        var bench = DownlinkBench(vector.packets.map { Self.outer($0) })
        let frames = bench.run()
        #expect(frames.map(\.bytes) == vector.frames)
    }

    // MARK: Who is merged with whom

    struct Row: CustomTestStringConvertible {
        let name: String
        /// Inner packets.
        let packets: [[UInt8]]
        /// Which of them make one frame, in the order of the frames.
        let groups: [[Int]]
        var testDescription: String { name }

        init(_ name: String, _ packets: [Transport], _ groups: [[Int]]) { self.init(name, packets.map(\.bytes), groups) }
        init(_ name: String, _ packets: [[UInt8]], _ groups: [[Int]]) {
            (self.name, self.packets, self.groups) = (name, packets, groups)
        }
    }

    /// The frame that packets become, made without the library: one alone keeps all its bytes.
    static func frame(of group: [[UInt8]]) -> [UInt8] {
        let head = group[0]
        let isTCP = head[6] == 6
        let offset = isTCP ? 16 : 6
        if group.count == 1 {
            let isTransport = (isTCP && head.count >= 60) || (head[6] == 17 && head.count >= 48)
            guard isTransport else { return [UInt8](repeating: 0, count: 10) + head }
            let field = KernelReference.number(head, 40 + offset)
            guard field == Int(KernelReference.pseudoSum(head)), isTCP || field != 0 else {
                return [UInt8](repeating: 0, count: 10) + head
            }
            return KernelReference.virtio(offset: offset) + head
        }
        let headers = isTCP ? 40 + Int(head[52] >> 4) * 4 : 48
        var packet = head + group.dropFirst().flatMap { $0[headers...] }
        packet.replaceSubrange(4..<6, with: Packets.bytes(UInt16(packet.count - 40)))
        if isTCP {
            packet[53] |= group.last![53] & 0x09
        } else {
            packet.replaceSubrange(44..<46, with: Packets.bytes(UInt16(packet.count - 40)))
        }
        packet.replaceSubrange(40 + offset..<42 + offset, with: Packets.bytes(KernelReference.pseudoSum(packet)))
        let type: UInt8 = isTCP ? (head[53] & 0x80 != 0 ? 0x84 : 4) : 5
        return KernelReference.virtio(type: type, headers: headers, size: head.count - headers, offset: offset) + packet
    }

    static func tcp(_ index: Int, _ change: (inout Transport) -> Void = { _ in }) -> Transport {
        var segment = Transport()
        segment.sequence = 1000 + 8 * UInt32(index)
        segment.payload = Transport.pattern(8, from: 8 * index)
        change(&segment)
        return segment
    }

    static func udp(_ index: Int, _ change: (inout Transport) -> Void = { _ in }) -> Transport {
        var datagram = Transport()
        datagram.isTCP = false
        datagram.payload = Transport.pattern(8, from: 8 * index)
        change(&datagram)
        return datagram
    }

    /// Three packets of which the middle one, or only something about it, is special: none may be merged.
    static func odd(_ name: String, _ change: (inout Transport) -> Void) -> [Row] {
        [
            Row("TCP, \(name)", [tcp(0), tcp(1, change), tcp(2)], [[0], [1], [2]]),
            Row("UDP, \(name)", [udp(0), udp(1, change), udp(2)], [[0], [1], [2]]),
        ]
    }

    static let timestamps = hex("0101080a 00000010 00000020")

    static let tcpRows: [Row] = [
        Row("one", [tcp(0)], [[0]]),
        Row("three in order", [tcp(0), tcp(1), tcp(2)], [[0, 1, 2]]),
        Row("a short one ends", [tcp(0), tcp(1) { $0.payload.removeLast() }, tcp(2) { $0.sequence -= 1 }], [[0, 1], [2]]),
        Row(
            "a longer one begins anew",
            [
                tcp(0), tcp(1) { $0.payload += [1] },
                tcp(2) {
                    $0.sequence += 1; $0.payload += [2]
                },
            ], [[0], [1, 2]]),
        Row(
            "a short first one",
            [
                tcp(1) {
                    $0.sequence = 1005; $0.payload = [1, 2, 3]
                }, tcp(1), tcp(2),
            ], [[0], [1, 2]]),
        Row("PSH ends", [tcp(0), tcp(1) { $0.flags = 0x18 }, tcp(2), tcp(3)], [[0, 1], [2, 3]]),
        Row(
            "PSH on each", [tcp(0) { $0.flags = 0x18 }, tcp(1) { $0.flags = 0x18 }, tcp(2) { $0.flags = 0x18 }], [[0], [1], [2]]),
        Row("PSH on the first", [tcp(0) { $0.flags = 0x18 }, tcp(1), tcp(2)], [[0], [1, 2]]),
        Row("FIN ends", [tcp(0), tcp(1) { $0.flags = 0x11 }, tcp(2)], [[0, 1], [2]]),
        Row(
            "FIN without data",
            [
                tcp(0),
                tcp(1) {
                    $0.flags = 0x11; $0.payload = []
                }, tcp(1),
            ], [[0], [1], [2]]),
        Row("SYN with data", [tcp(0), tcp(1) { $0.flags = 0x12 }, tcp(2), tcp(3)], [[0], [1], [2, 3]]),
        Row("SYN on each", [tcp(0) { $0.flags = 0x02 }, tcp(1) { $0.flags = 0x02 }], [[0], [1]]),
        Row("RST with data", [tcp(0), tcp(1) { $0.flags = 0x14 }, tcp(2), tcp(3)], [[0], [1], [2, 3]]),
        Row(
            "URG",
            [
                tcp(0),
                tcp(1) {
                    $0.flags = 0x30; $0.urgent = 4
                }, tcp(2), tcp(3),
            ], [[0], [1], [2, 3]]),
        Row(
            "URG on each",
            [
                tcp(0) {
                    $0.flags = 0x30; $0.urgent = 4
                },
                tcp(1) {
                    $0.flags = 0x30; $0.urgent = 4
                },
            ], [[0], [1]]),
        Row("CWR on the first", [tcp(0) { $0.flags = 0x90 }, tcp(1), tcp(2)], [[0, 1, 2]]),
        Row("CWR on the second", [tcp(0), tcp(1) { $0.flags = 0x90 }, tcp(2)], [[0], [1, 2]]),
        Row("CWR on each", [tcp(0) { $0.flags = 0x90 }, tcp(1) { $0.flags = 0x90 }], [[0], [1]]),
        Row("CWR and PSH on the first", [tcp(0) { $0.flags = 0x98 }, tcp(1)], [[0], [1]]),
        Row("ECE on each", [tcp(0) { $0.flags = 0x50 }, tcp(1) { $0.flags = 0x50 }], [[0, 1]]),
        Row("ECE begins", [tcp(0), tcp(1) { $0.flags = 0x50 }, tcp(2) { $0.flags = 0x50 }], [[0], [1, 2]]),
        Row("ECE ends", [tcp(0) { $0.flags = 0x50 }, tcp(1)], [[0], [1]]),
        Row("without ACK", [tcp(0), tcp(1) { $0.flags = 0 }], [[0], [1]]),
        Row(
            "another acknowledgment", [tcp(0), tcp(1) { $0.acknowledgment = 78 }, tcp(2) { $0.acknowledgment = 78 }],
            [[0], [1, 2]]),
        Row("another window", [tcp(0), tcp(1) { $0.window = 499 }, tcp(2) { $0.window = 499 }], [[0], [1, 2]]),
        Row("a reserved bit", [tcp(0), tcp(1) { $0.reserved = 1 }], [[0], [1]]),
        Row("options begin", [tcp(0), tcp(1) { $0.options = timestamps }, tcp(2) { $0.options = timestamps }], [[0], [1, 2]]),
        Row("options end", [tcp(0) { $0.options = timestamps }, tcp(1)], [[0], [1]]),
        Row(
            "shorter options", [tcp(0) { $0.options = timestamps + [1, 1, 1, 1] }, tcp(1) { $0.options = timestamps }],
            [[0], [1]]),
        Row(
            "another echo time", [tcp(0) { $0.options = timestamps }, tcp(1) { $0.options = hex("0101080a 00000010 00000021") }],
            [[0], [1]]),
        Row(
            "another time", [tcp(0) { $0.options = timestamps }, tcp(1) { $0.options = hex("0101080a 00000011 00000020") }],
            [[0], [1]]),
        Row(
            "40 bytes of options", [tcp(0) { $0.options = Packets.fullOptions }, tcp(1) { $0.options = Packets.fullOptions }],
            [[0, 1]]),
        Row(
            "the last of 40 bytes of options differs",
            [tcp(0) { $0.options = Packets.fullOptions }, tcp(1) { $0.options = Packets.fullOptions.dropLast() + [0] }],
            [[0], [1]]),
        Row("a gap", [tcp(0), tcp(2), tcp(3)], [[0], [1, 2]]),
        Row("a duplicate", [tcp(0), tcp(1), tcp(1), tcp(2)], [[0, 1], [2, 3]]),
        Row("the first again", [tcp(0), tcp(0), tcp(1)], [[0], [1, 2]]),
        Row("reordered", [tcp(1), tcp(0), tcp(2)], [[0], [1], [2]]),
        Row("reordered later", [tcp(0), tcp(2), tcp(1), tcp(3)], [[0], [1], [2], [3]]),
        Row("an overlap", [tcp(0), tcp(1) { $0.sequence -= 1 }], [[0], [1]]),
        Row(
            "a keep-alive",
            [
                tcp(0),
                tcp(1) {
                    $0.sequence -= 1; $0.payload = [0]
                }, tcp(1),
            ], [[0], [1], [2]]),
        Row("the sequence number wraps", [tcp(0) { $0.sequence = 0xFFFF_FFFC }, tcp(1) { $0.sequence = 4 }], [[0, 1]]),
        Row("acknowledgements between", [tcp(0), tcp(1), tcp(2) { $0.payload = [] }, tcp(2), tcp(3)], [[0, 1], [2], [3, 4]]),
        Row("acknowledgements alone", [tcp(0) { $0.payload = [] }, tcp(0) { $0.payload = [] }], [[0], [1]]),
        Row("a wrong checksum", [tcp(0), tcp(1) { $0.checksum = .wrong }, tcp(2), tcp(3)], [[0], [1], [2, 3]]),
        Row(
            "wrong checksums first and last", [tcp(0) { $0.checksum = .wrong }, tcp(1), tcp(2), tcp(3) { $0.checksum = .wrong }],
            [[0], [1, 2], [3]]),
        Row("a checksum of 0", [tcp(0), tcp(1) { $0.checksum = .value(0) }, tcp(2)], [[0], [1], [2]]),
        Row(
            "unfinished checksums", [tcp(0) { $0.checksum = .unfinished }, tcp(1), tcp(2) { $0.checksum = .unfinished }],
            [[0, 1, 2]]),
        Row(
            "an unfinished acknowledgement",
            [
                tcp(0) {
                    $0.checksum = .unfinished; $0.payload = []
                }, tcp(0),
            ], [[0], [1]]),
        Row(
            "two flows, interleaved", [tcp(0), udp(0) { $0.sourcePort = 9 }, tcp(1), udp(1) { $0.sourcePort = 9 }],
            [[0, 2], [1, 3]]),
        Row(
            "ICMPv6 is no flow of its own",
            [tcp(0).bytes, Packets.inner(peer, us, next: 58, payload: hex("8000 0000 0001 0001")), tcp(1).bytes], [[0, 2], [1]]),
        // Half headers: nothing to merge, nothing to read past.
        Row("a TCP header cut off", [Packets.inner(peer, us, next: 6, payload: Array(tcp(0).bytes[40..<59]))], [[0]]),
        Row(
            "a TCP header of 4 words",
            [
                Packets.inner(
                    peer, us, next: 6, payload: SegmentationSplitTests.changed(tcp(0).bytes, [52: 0x40]).dropFirst(40) + [])
            ], [[0]]),
        Row(
            "TCP options past the end",
            [
                Packets.inner(
                    peer, us, next: 6, payload: SegmentationSplitTests.changed(tcp(0).bytes, [52: 0xF0]).dropFirst(40) + [])
            ], [[0]]),
        Row(
            "no transport header at all",
            [Packets.inner(peer, us, next: 6, payload: []), Packets.inner(peer, us, next: 17, payload: [])], [[0], [1]]),
        Row("a UDP header cut off", [Packets.inner(peer, us, next: 17, payload: Array(udp(0).bytes[40..<47]))], [[0]]),
    ]

    static let udpRows: [Row] = [
        Row("equal datagrams", [udp(0), udp(1), udp(2)], [[0, 1, 2]]),
        Row("equal bytes", [udp(0), udp(0)], [[0, 1]]),
        Row("a short one ends", [udp(0), udp(1) { $0.payload.removeLast() }, udp(2), udp(3)], [[0, 1], [2, 3]]),
        Row(
            "a longer one begins anew", [udp(0), udp(1), udp(2) { $0.payload += [1] }, udp(3) { $0.payload += [1] }],
            [[0, 1], [2, 3]]),
        Row("a short one, then its like", [udp(0), udp(1) { $0.payload = [1] }, udp(2) { $0.payload = [2] }], [[0, 1], [2]]),
        Row("no payload", [udp(0), udp(1) { $0.payload = [] }, udp(2)], [[0], [1], [2]]),
        Row("no checksum", [udp(0), udp(1) { $0.checksum = .value(0) }, udp(2), udp(3)], [[0], [1], [2, 3]]),
        Row("no checksum on each", [udp(0) { $0.checksum = .value(0) }, udp(1) { $0.checksum = .value(0) }], [[0], [1]]),
        Row("a wrong checksum", [udp(0), udp(1) { $0.checksum = .wrong }, udp(2), udp(3)], [[0], [1], [2, 3]]),
        Row(
            "unfinished checksums", [udp(0), udp(1) { $0.checksum = .unfinished }, udp(2) { $0.checksum = .unfinished }],
            [[0, 1, 2]]),
        Row("the length field is too small", [udp(0), udp(1) { $0.length = 15 }, udp(2)], [[0], [1], [2]]),
        Row("the length field is too large", [udp(0), udp(1) { $0.length = 17 }, udp(2)], [[0], [1], [2]]),
        Row("the length field is 0", [udp(0), udp(1) { $0.length = 0 }, udp(2)], [[0], [1], [2]]),
        Row("the length field is 8", [udp(0), udp(1) { $0.length = 8 }, udp(2)], [[0], [1], [2]]),
        // A sum that comes out as 0 is written as 0xFFFF, and is right.
        Row("a checksum of 0xFFFF", [ZeroSum.ffff, ZeroSum.ffff], [[0, 1]]),
    ]

    /// What makes two packets differ in the network header, or be of other flows; the third continues neither.
    static let headerRows: [Row] =
        [
            ("another DSCP", { $0.trafficClass = 0x08 }), ("another ECN", { $0.trafficClass = 0x02 }),
            ("another flow label", { $0.flowLabel = 1 }), ("the flow label's last bit", { $0.flowLabel = 0x80000 }),
            ("another hop limit", { $0.hopLimit = 63 }),
        ].flatMap { (name: String, change: (inout Transport) -> Void) in
            odd(name, change)
                + [
                    Row("TCP, \(name) on each", [tcp(0, change), tcp(1, change)], [[0, 1]]),
                    Row("UDP, \(name) on each", [udp(0, change), udp(1, change)], [[0, 1]]),
                ]
        }

    /// Other flows may or may not close the first one, so it ends before them.
    static let flowRows: [Row] =
        [
            ("source port", { $0.sourcePort = 444 }), ("destination port", { $0.destinationPort = 40001 }),
            ("ports the other way round", { ($0.sourcePort, $0.destinationPort) = ($0.destinationPort, $0.sourcePort) }),
            ("source", { $0.source = "2001:db8:64c8:200::3" }), ("source's first half", { $0.source = "2001:db8:64c8:201::2" }),
            ("destination", { $0.destination = "2001:db8:6464:100::2" }),
            ("destination's first half", { $0.destination = "2001:db8:6464:101::1" }),
        ].flatMap { (name: String, change: (inout Transport) -> Void) in
            [
                Row("TCP, another \(name)", [tcp(0), tcp(1, change), tcp(2, change)], [[0], [1, 2]]),
                Row("UDP, another \(name)", [udp(0), udp(1, change), udp(2, change)], [[0], [1, 2]]),
            ]
        }

    /// Behind extension headers, TCP or UDP may be of any flow: never merged, never overtaken.
    static let extensionRows: [Row] = [
        ("hop-by-hop options", 0, Packets.extensionHeader(next: 6)),
        ("destination options", 60, Packets.extensionHeader(next: 6)),
        ("a first fragment", 44, Packets.fragmentHeader(next: 6, more: true)),
        ("a later fragment", 44, Packets.fragmentHeader(next: 6, offset: 9, more: false)),
        ("a routing header", 43, [6, 0, 4, 0, 0, 0, 0, 0]), ("an authentication header", 51, [6, 0, 0, 0, 0, 0, 0, 0]),
        ("no next header", 59, []), ("SCTP", 132, []),
    ].flatMap { (name: String, next: Int, header: [UInt8]) -> [Row] in
        let special = { (index: Int) in
            Packets.inner(peer, us, next: UInt8(next), payload: header + tcp(index).bytes[40...])
        }
        return [
            Row(name, [tcp(0).bytes, special(1), tcp(1).bytes, tcp(2).bytes], [[0], [1], [2, 3]]),
            Row("\(name), UDP around", [udp(0).bytes, special(1), udp(1).bytes, udp(2).bytes], [[0], [1], [2, 3]]),
            Row("\(name), twice", [special(0), special(1), tcp(2).bytes], [[0], [1], [2]]),
        ]
    }

    @Test(arguments: tcpRows) func tcp(row: Row) { check(row) }
    @Test(arguments: udpRows) func udp(row: Row) { check(row) }
    @Test(arguments: headerRows + flowRows) func networkHeaders(row: Row) { check(row) }
    @Test(arguments: extensionRows) func extensionHeaders(row: Row) { check(row) }

    @Test(arguments: 2...45) func anyNumberOfSegments(count: Int) {
        check(Row("TCP", (0..<count).map { Self.tcp($0) }, [Array(0..<count)]))
        check(Row("UDP", (0..<count).map { Self.udp($0) }, [Array(0..<count)]))
    }

    private func check(_ row: Row) {
        var bench = DownlinkBench(row.packets.map { Self.outer($0) })
        let frames = bench.run()
        let expected = row.groups.map { group in Self.frame(of: group.map { row.packets[$0] }) }
        #expect(frames.map(\.bytes) == expected)
        #expect(frames.map(\.packetCount) == row.groups.map(\.count))
        guard frames.count == expected.count else { return }
        #expect(frames.map(\.innerLength) == row.groups.map { $0.reduce(0) { $0 + row.packets[$1].count } })
        for (frame, group) in zip(frames, row.groups) {
            // The first packet whole, behind its virtio-net header; of the others the payload, where each arrived.
            let head = row.packets[group[0]]
            let headers = head.count > 52 && head[6] == 6 ? 40 + Int(head[52] >> 4) * 4 : 48
            let slices = group.enumerated().map { place, index in
                let start = Int(bench.slices[index].offset) + 20
                return place == 0
                    ? Slice(offset: start - 10, length: 10 + head.count)
                    : Slice(offset: start + headers, length: row.packets[index].count - headers)
            }
            #expect(frame.slices == slices)
        }
        let (gapsAreUntouched, dropped) = (bench.gapsAreUntouched, bench.room.dropped.count)
        #expect(gapsAreUntouched && dropped == 0)
        #expect(bench.counters.mergedPackets == UInt64(row.groups.filter { $0.count > 1 }.count))

        // Taken apart again: each packet as it came, or as the TUN makes it.
        for (index, group) in row.groups.enumerated() where group.count > 1 {
            let single = bench.unmerge(index)
            #expect(
                single.map { KernelReference.packets(of: $0.bytes) } == group.map { [KernelReference.finished(row.packets[$0])] })
            #expect(single.allSatisfy { $0.packetCount == 1 && $0.slices.count == 1 && $0.innerLength + 10 == $0.bytes.count })
        }
        let gaps = bench.gapsAreUntouched
        #expect(gaps)

        // Nothing stays behind in the merger.
        bench.memory = bench.before
        bench.room.removeAll()
        let again = bench.run()
        #expect(again == frames)
    }

    // MARK: Limits

    /// A payload length of 65,535 is the most: header and data of TCP, 20 + 65,515.
    @Test(arguments: [
        (13103, 13103, 1), (13103, 13102, 1), (13103, 1, 1), (13104, 13099, 1), (13104, 13100, 2), (13104, 13104, 2),
    ])
    func theLongestTCP(size: Int, last: Int, frames count: Int) {
        var packets: [Transport] = []
        for index in 0..<5 {
            packets.append(
                Self.tcp(0) {
                    $0.sequence = UInt32(index * size)
                    $0.payload = Transport.pattern(index == 4 ? last : size, from: index * size)
                })
        }
        var bench = DownlinkBench(packets.map { Self.outer($0.bytes) })
        let frames = bench.run()
        #expect(frames.map(\.packetCount) == (count == 1 ? [5] : [4, 1]))
        #expect(frames.flatMap { KernelReference.packets(of: $0.bytes) ?? [] } == packets.map(\.bytes))
    }

    @Test(arguments: [(13105, 13105, [5]), (13106, 13103, [5]), (13106, 13104, [4, 1])])
    func theLongestUDP(size: Int, last: Int, counts: [Int]) {
        let packets = (0..<5).map { index in
            Self.udp(0) { $0.payload = Transport.pattern(index == 4 ? last : size, from: index * size) }
        }
        var bench = DownlinkBench(packets.map { Self.outer($0.bytes) })
        let frames = bench.run()
        #expect(frames.map(\.packetCount) == counts)
        #expect(frames.flatMap { KernelReference.packets(of: $0.bytes) ?? [] } == packets.map(\.bytes))
    }

    /// UDP_GRO_CNT_MAX
    @Test func sixtyFourDatagrams() {
        let packets = (0..<131).map { index in Self.udp(index) { $0.payload = [UInt8(index)] } }
        var bench = DownlinkBench(packets.map { Self.outer($0.bytes) })
        let frames = bench.run()
        #expect(frames.map(\.packetCount) == [64, 64, 3])
        #expect(frames.flatMap { KernelReference.packets(of: $0.bytes) ?? [] } == packets.map(\.bytes))
    }

    // MARK: Around the packet

    @Test func mergingOff() {
        var bench = DownlinkBench(
            [Self.tcp(0), Self.tcp(1), Self.udp(0), Self.udp(1)].map { Self.outer($0.bytes) }, merges: false)
        let frames = bench.run()
        #expect(frames.map(\.packetCount) == [1, 1, 1, 1] && bench.counters.mergedPackets == 0)
    }

    @Test(arguments: [true, false])
    func eachProtocolAlone(isTCP: Bool) {
        var bench = DownlinkBench([Self.tcp(0), Self.udp(0), Self.tcp(1), Self.udp(1)].map { Self.outer($0.bytes) })
        (bench.merge.mergesTCP, bench.merge.mergesUDP) = (isTCP, !isTCP)
        let frames = bench.run()
        #expect(frames.map(\.packetCount).sorted() == [1, 1, 2])
        #expect(frames.first { $0.packetCount == 2 }?.packet[6] == (isTCP ? 6 : 17))
    }

    /// Bytes behind the payload, and options of the outer header, are not the packet's.
    @Test func paddingAndOuterOptions() {
        let packets = (0..<3).map { Self.tcp($0).bytes }
        var bench = DownlinkBench([
            Self.outer(packets[0] + [0xEE, 0xEE, 0xEE]), Self.outer(packets[1] + [0xEE], options: Packets.fullOptions),
            Self.outer(packets[2]),
        ])
        let frames = bench.run()
        #expect(frames.map(\.bytes) == [Self.frame(of: packets)])
    }

    /// The outer header's congestion mark becomes the inner header's, and splits the stream there (RFC 6040).
    @Test func congestionMarks() {
        let packets = (0..<5).map { index in Self.tcp(index) { $0.trafficClass = 0x02 } }
        var bench = DownlinkBench(packets.enumerated().map { Self.outer($1.bytes, tos: [2, 2, 3, 3, 2][$0]) })
        let frames = bench.run()
        let marked = packets.enumerated().map { index, packet in
            packet.with { $0.trafficClass = index == 2 || index == 3 ? 3 : 2 }.bytes
        }
        #expect(
            frames.map(\.bytes) == [[0, 1], [2, 3], [4]].map { (group: [Int]) in Self.frame(of: group.map { marked[$0] }) })
    }

    @Test func droppedPacketsAreNotMerged() {
        let packets = (0..<4).map { Self.tcp($0).bytes }
        var all = packets.map { Self.outer($0) }
        all[1] = Packets.outer("10.100.200.3", "10.100.100.1", packets[1])
        var bench = DownlinkBench(all)
        let frames = bench.run()
        let dropped = bench.room.droppedSlices
        #expect(frames.map(\.bytes) == [[0], [2, 3]].map { (group: [Int]) in Self.frame(of: group.map { packets[$0] }) })
        #expect(dropped == [bench.slices[1]])
        #expect(bench.counters[.downlinkInnerSourceSpoofed] == 1)
    }

    // MARK: Super-packets on arrival

    /// Longer than the MTU and unfinished: the kernel has merged it already, into segments of unknown length.
    static func arrivingSuperPacket(sequence: UInt32, flags: UInt8 = 0x10) -> Transport {
        tcp(0) {
            $0.sequence = sequence
            $0.flags = flags
            $0.payload = Transport.pattern(3000)
            $0.checksum = .unfinished
        }
    }

    @Test func superPacketsGoAloneAndInOrder() {
        let packets = [
            Self.tcp(0), Self.tcp(1), Self.arrivingSuperPacket(sequence: 1016),
            Self.arrivingSuperPacket(sequence: 4016, flags: 0x90),
            Self.tcp(0) { $0.sequence = 7016 }, Self.tcp(0) { $0.sequence = 7024 },
        ].map(\.bytes)
        var bench = DownlinkBench(packets.map { Self.outer($0) })
        let frames = bench.run()
        let virtio = { (type: UInt8) in KernelReference.virtio(type: type, headers: 60, size: 1220, offset: 16) }
        #expect(
            frames.map(\.bytes) == [
                Self.frame(of: [packets[0], packets[1]]), virtio(4) + packets[2], virtio(0x84) + packets[3],
                Self.frame(of: [packets[4], packets[5]]),
            ])
        #expect(frames.map(\.packetCount) == [2, 1, 1, 2])
    }

    /// Unfinished, and nobody saw how many packets it was: it may end a frame, where it is cut no longer than the others, but its
    /// own length is no segment size.
    @Test(arguments: [true, false])
    func whatMayBeSeveralBeginsNoFrame(isTCP: Bool) {
        let packets = (0..<6).map { index in
            (isTCP ? Self.tcp(index) : Self.udp(index)).with { if index % 3 == 0 { $0.checksum = .unfinished } }.bytes
        }
        var bench = DownlinkBench(packets.map { Self.outer($0) })
        let frames = bench.run(witness: nil)
        let groups = [[0], [1, 2, 3, 4, 5]]
        #expect(frames.map(\.bytes) == groups.map { group in Self.frame(of: group.map { packets[$0] }) })
        var known = DownlinkBench(packets.map { Self.outer($0) })
        #expect(known.run().map(\.packetCount) == [6])
    }

    @Test func aSuperPacketBehindExtensionHeadersIsNotOvertaken() {
        let inner = Self.arrivingSuperPacket(sequence: 1008).bytes
        let packets = [
            Self.tcp(0).bytes,
            Packets.inner(Self.peer, Self.us, next: 60, payload: Packets.extensionHeader(next: 6) + inner[40...]),
            Self.tcp(1).bytes,
        ]
        var bench = DownlinkBench(packets.map { Self.outer($0) })
        let frames = bench.run()
        #expect(frames.map(\.packet) == packets)
        guard frames.count == 3 else { return }
        #expect(
            frames[1].bytes[..<10].elementsEqual(KernelReference.virtio(type: 4, headers: 68, size: 1212, start: 48, offset: 16)))
    }

    /// Longer than the MTU with a right checksum: a packet that IPv4 fragments carried, which merges like any other.
    @Test func longPacketsWithChecksums() {
        let packets = (0..<3).map { index in
            Self.tcp(0) {
                $0.sequence = UInt32(index) * 3000
                $0.payload = Transport.pattern(3000, from: index * 3000)
            }.bytes
        }
        var bench = DownlinkBench(packets.map { Self.outer($0) })
        let frames = bench.run()
        #expect(frames.map(\.bytes) == [Self.frame(of: packets)])
    }
}

/// A datagram from the peer to us whose checksum field is 0xFFFF.
enum ZeroSum {
    static let ffff: Transport = {
        var datagram = Transport()
        datagram.isTCP = false
        datagram.payload = [0, 0]
        let bytes = datagram.bytes
        let missing = UInt16(KernelReference.number(bytes, 46))
        datagram.payload = Packets.bytes(missing)
        precondition(Array(datagram.bytes[46..<48]) == [0xFF, 0xFF])
        return datagram
    }()
}
