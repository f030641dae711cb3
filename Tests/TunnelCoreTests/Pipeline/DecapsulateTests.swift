import Testing
import TunnelCore

/// Structure, outer addresses, order of checks, batches. Who may use which inner address: SourceCheckTests.
@Suite struct DecapsulateTests {
    struct Row: CustomTestStringConvertible {
        let name: String
        let policy: TunnelPolicy
        let packet: [UInt8]
        let verdict: DownlinkVerdict
        var testDescription: String { name }

        init(_ name: String, _ policy: TunnelPolicy, _ packet: [UInt8], _ verdict: DownlinkVerdict) {
            (self.name, self.policy, self.packet, self.verdict) = (name, policy, packet, verdict)
        }
    }

    static func deliver(_ innerLength: Int = 48, at innerOffset: Int = 20, trafficClass: UInt8 = 0) -> DownlinkVerdict {
        .deliver(Delivery(innerOffset: innerOffset, innerLength: innerLength, trafficClass: trafficClass))
    }

    static let (us, peer) = ("2001:db8:6464:100::1", "2001:db8:64c8:200::2")
    static let elsewhere = "3fff:eee::1"

    /// From the peer to us, in the site.
    static func packet(
        from outerSource: String = "10.100.200.2", to outerDestination: String = "10.100.100.1", tos: UInt8 = 0,
        options: [UInt8] = [],
        _ inner: [UInt8]
    ) -> [UInt8] {
        Packets.outer(outerSource, outerDestination, inner, tos: tos, options: options)
    }

    static func inner(
        from source: String = peer, to destination: String = us, next: UInt8 = 59, payload: [UInt8] = Array("12345678".utf8),
        trafficClass: UInt8 = 0, version: UInt8 = 6, payloadLength: Int? = nil
    ) -> [UInt8] {
        Packets.inner(
            source, destination, next: next, payload: payload, version: version, trafficClass: trafficClass,
            payloadLength: payloadLength)
    }

    /// From the remote of the point-to-point tunnel.
    static func remotePacket(
        from outerSource: String = "198.51.100.7", to outerDestination: String = "192.0.2.1", tos: UInt8 = 0, _ inner: [UInt8]
    ) -> [UInt8] {
        Packets.outer(outerSource, outerDestination, inner, tos: tos)
    }

    // MARK: What passes

    static let passing = [
        Row("from the embedded host", Policies.site, packet(inner()), deliver()),
        Row("a header alone", Policies.site, packet(inner(payload: [])), deliver(40)),
        Row("padding is trimmed", Policies.site, packet(inner() + [0xEE, 0xEE, 0xEE, 0xEE, 0xEE]), deliver()),
        Row("padding behind a header alone", Policies.site, packet(inner(payload: []) + [0xEE]), deliver(40)),
        Row("4 bytes of options", Policies.site, packet(options: [1, 1, 1, 0], inner()), deliver(at: 24)),
        Row("40 bytes of options", Policies.site, packet(options: Packets.fullOptions, inner()), deliver(at: 60)),
        Row(
            "40 bytes of options and padding", Policies.site, packet(options: Packets.fullOptions, inner() + [0]), deliver(at: 60)
        ),
        Row(
            "the longest there is", Policies.site, packet(inner(payload: Array(repeating: 0, count: 65475))), deliver(65515)),
        Row(
            "6to4", Policies.sixToFour,
            packet(from: "198.51.100.7", to: "192.0.2.1", inner(from: "2002:c633:6407::1", to: "2002:c000:201::1")), deliver()),
        Row(
            "whole IPv4 addresses", Policies.wholeIPv4,
            packet(from: "198.51.100.7", to: "192.0.2.1", inner(from: "fd00:0:c633:6407::1", to: "fd00:0:c000:201::1")), deliver()
        ),
        Row("remote: any addresses", Policies.remote, remotePacket(inner(from: elsewhere, to: us)), deliver()),
        Row("remote: link-local", Policies.remote, remotePacket(inner(from: "fe80::1", to: "fe80::2")), deliver()),
        Row("remote: multicast", Policies.remote, remotePacket(inner(from: "fe80::1", to: "ff02::1")), deliver()),
        Row(
            "remote: an embedded host that is another", Policies.remote, remotePacket(inner(from: "2002:a00:1::1", to: us)),
            deliver()),
        Row("remote: padding is trimmed", Policies.remote, remotePacket(inner() + [1, 2]), deliver()),
        // Just outside the martian ranges; the site's members are in 10/8, so in 6to4.
        Row(
            "from 1.0.0.0", Policies.sixToFour,
            packet(from: "1.0.0.0", to: "192.0.2.1", inner(from: "2002:100::1", to: "2002:c000:201::1")), deliver()),
        Row(
            "from 126.255.255.255", Policies.sixToFour,
            packet(from: "126.255.255.255", to: "192.0.2.1", inner(from: "2002:7eff:ffff::1", to: "2002:c000:201::1")), deliver()),
        Row(
            "from 223.255.255.255", Policies.sixToFour,
            packet(from: "223.255.255.255", to: "192.0.2.1", inner(from: "2002:dfff:ffff::1", to: "2002:c000:201::1")), deliver()),
    ]

    // bytes of scapy, from the peer to us
    static let scapy = [
        // IP(src="10.100.200.2", dst="10.100.100.1", tos=0xb9, id=1, flags="DF") /
        // IPv6(src="2001:db8:64c8:200::2", dst="2001:db8:6464:100::1", tc=0xba, fl=0x12345) /
        // ICMPv6EchoRequest(id=1, seq=1, data=b"ping"): ECT(0) inside, ECT(1) outside
        Row(
            "an echo request with ECT", Policies.site,
            hex(
                """
                45b90048 00014000 4029f907 0a64c802 0a646401 6ba12345 000c3a40 20010db8 64c80200 00000000 00000002
                20010db8 64640100 00000000 00000001 80007944 00010001 70696e67
                """), deliver(52, trafficClass: 0xB9)),
        // IP(…, tos=1, options=[IPOption_RR(routers=["0.0.0.0"] * 9), IPOption_NOP()]) / IPv6(…, tc=2) / UDP(sport=1, dport=2) /
        // b"x" / Padding(b"\xee" * 5)
        Row(
            "UDP with options and padding", Policies.site,
            hex(
                """
                4f01006d 00014000 4029e472 0a64c802 0a646401
                07270400 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000001
                60200000 00091140 20010db8 64c80200 00000000 00000002 20010db8 64640100 00000000 00000001
                00010002 00096037 78 eeeeeeeeee
                """), deliver(49, at: 60, trafficClass: 0x01)),
    ]

    // MARK: What does not

    static let structure = [
        Row("nothing", Policies.site, [], .drop(.downlinkOuterHeader)),
        Row("19 bytes", Policies.site, Array(packet(inner())[..<19]), .drop(.downlinkOuterHeader)),
        Row("outer version 6", Policies.site, [0x65] + packet(inner())[1...], .drop(.downlinkOuterHeader)),
        Row("outer header of 4 words", Policies.site, [0x44] + packet(inner())[1...], .drop(.downlinkOuterHeader)),
        Row(
            "outer options cut off", Policies.remote, Array(packet(options: Packets.fullOptions, [])[..<59]),
            .drop(.downlinkOuterHeader)),
        Row("nothing behind the outer header", Policies.site, packet([]), .drop(.downlinkShort)),
        Row("39 bytes", Policies.site, packet(Array(inner()[..<39])), .drop(.downlinkShort)),
        Row("39 bytes, remote", Policies.remote, remotePacket(Array(inner()[..<39])), .drop(.downlinkShort)),
        Row(
            "39 bytes behind 40 of options", Policies.site, packet(options: Packets.fullOptions, Array(inner()[..<39])),
            .drop(.downlinkShort)),
        Row("not sent to us", Policies.site, packet(to: "10.100.100.2", inner()), .drop(.downlinkOuterDestination)),
        Row("broadcast", Policies.site, packet(to: "10.255.255.255", inner()), .drop(.downlinkOuterDestination)),
        Row("not sent to us, remote", Policies.remote, remotePacket(to: "192.0.2.2", inner()), .drop(.downlinkOuterDestination)),
        Row("inner version 4", Policies.site, packet(inner(version: 4)), .drop(.downlinkNotIPv6)),
        Row("inner version 0", Policies.site, packet(inner(version: 0)), .drop(.downlinkNotIPv6)),
        Row("inner version 7, remote", Policies.remote, remotePacket(inner(version: 7)), .drop(.downlinkNotIPv6)),
        Row("one byte missing", Policies.site, packet(inner(payloadLength: 9)), .drop(.downlinkTruncated)),
        Row(
            "one byte missing behind options", Policies.site, packet(options: Packets.fullOptions, inner(payloadLength: 9)),
            .drop(.downlinkTruncated)),
        Row(
            "all but the header missing", Policies.remote, remotePacket(inner(payload: [], payloadLength: 65535)),
            .drop(.downlinkTruncated)),
    ]

    static let outerSources: [Row] =
        [
            // 6to4: every host is in R/m, so only the martian rule refuses them.
            ("0.0.0.0", "2002::1"), ("0.1.2.3", "2002:1:203::1"), ("127.0.0.1", "2002:7f00:1::1"),
            ("224.0.0.1", "2002:e000:1::1"),
            ("239.1.2.3", "2002:ef01:203::1"), ("240.0.0.1", "2002:f000:1::1"), ("255.255.255.255", "2002:ffff:ffff::1"),
            ("192.0.2.255", "2002:c000:2ff::1"), ("192.0.2.1", "2002:c000:201::2"),
        ].map {
            Row(
                "from \($0.0)", Policies.sixToFour,
                packet(from: $0.0, to: "192.0.2.1", inner(from: $0.1, to: "2002:c000:201::1")),
                .drop(.downlinkOuterSourceMartian))
        } + [
            Row(
                "from the site's broadcast address", Policies.site,
                packet(from: "10.255.255.255", inner(from: "2001:db8:ffff:ff00::1")), .drop(.downlinkOuterSourceMartian)),
            Row(
                "from our own address", Policies.site, packet(from: "10.100.100.1", inner(from: us)),
                .drop(.downlinkOuterSourceMartian)),
            Row(
                "outside R/m", Policies.site, packet(from: "192.0.2.33", inner(from: elsewhere)),
                .drop(.downlinkOuterSourceUnknown)),
            Row(
                "the host after R/m", Policies.site, packet(from: "11.0.0.0", inner(from: "2001:db8::1")),
                .drop(.downlinkOuterSourceUnknown)),
            Row(
                "outside R/m, not the relay", Policies.relayed, packet(from: "192.0.2.34", inner(from: elsewhere)),
                .drop(.downlinkOuterSourceUnknown)),
            Row(
                "outside R/m, not the endpoint", Policies.routed, packet(from: "192.0.2.10", inner(from: "3fff:a::1")),
                .drop(.downlinkOuterSourceUnknown)),
            Row(
                "outside R/m, border relay", Policies.borderRelay,
                packet(from: "192.0.2.33", to: "10.0.0.1", inner(to: elsewhere)), .drop(.downlinkOuterSourceUnknown)),
            Row(
                "not the remote", Policies.remote, remotePacket(from: "198.51.100.8", inner()), .drop(.downlinkOuterSourceUnknown)
            ),
            // With a remote there is one rule for outer sources: to be it.
            Row(
                "remote: loopback", Policies.remote, remotePacket(from: "127.0.0.1", inner()), .drop(.downlinkOuterSourceUnknown)),
            Row(
                "remote: our own address", Policies.remote, remotePacket(from: "192.0.2.1", inner()),
                .drop(.downlinkOuterSourceUnknown)),
        ]

    static let nested = EncapsulateTests.tunnels.flatMap { name, next, headers in
        [
            Row(
                "site: \(name)", Policies.site, packet(inner(next: next, payload: headers + inner())),
                .drop(.downlinkNestedTunnel)),
            Row(
                "remote: \(name)", Policies.remote, remotePacket(inner(next: next, payload: headers + inner())),
                .drop(.downlinkNestedTunnel)),
        ]
    }

    /// RFC 6040 section 4.2, rows by inner and columns by outer codepoint; nil is dropped. The kernel's verdicts.
    static let ecnTable: [(inner: UInt8, outer: UInt8, result: UInt8?)] = [
        (0, 0, 0), (0, 2, 0), (0, 1, 0), (0, 3, nil),
        (2, 0, 2), (2, 2, 2), (2, 1, 1), (2, 3, 3),
        (1, 0, 1), (1, 2, 1), (1, 1, 1), (1, 3, 3),
        (3, 0, 3), (3, 2, 3), (3, 1, 3), (3, 3, 3),
    ]

    static let ecn = ecnTable.flatMap { inner, outer, result in
        [
            Row(
                "inner \(inner), outer \(outer)", Policies.site,
                packet(tos: 0xB8 | outer, Self.inner(trafficClass: 0x28 | inner)),
                result.map { deliver(trafficClass: 0x28 | $0) } ?? .drop(.downlinkECN)),
            Row(
                "inner \(inner), outer \(outer), remote", Policies.remote,
                remotePacket(tos: 0x00 | outer, Self.inner(trafficClass: 0xFC | inner)),
                result.map { deliver(trafficClass: 0xFC | $0) } ?? .drop(.downlinkECN)),
        ]
    }

    // Where two rules refuse a packet, the first gives its name.
    static let order: [Row] = [
        Row(
            "short before outer-destination", Policies.site, packet(to: "10.0.0.9", Array(inner()[..<39])), .drop(.downlinkShort)),
        Row("short before outer-source", Policies.site, packet(from: "127.0.0.1", Array(inner()[..<39])), .drop(.downlinkShort)),
        Row(
            "outer-header before outer-destination", Policies.site, [0x44] + packet(to: "10.0.0.9", inner())[1...],
            .drop(.downlinkOuterHeader)),
        Row(
            "outer-destination before not-ipv6", Policies.site, packet(to: "10.0.0.9", inner(version: 4)),
            .drop(.downlinkOuterDestination)),
        Row(
            "outer-destination before outer-source", Policies.site, packet(from: "127.0.0.1", to: "10.0.0.9", inner()),
            .drop(.downlinkOuterDestination)),
        Row("not-ipv6 before truncated", Policies.site, packet(inner(version: 4, payloadLength: 9)), .drop(.downlinkNotIPv6)),
        Row("not-ipv6 before outer-source", Policies.site, packet(from: "127.0.0.1", inner(version: 4)), .drop(.downlinkNotIPv6)),
        Row(
            "truncated before outer-source-martian", Policies.site, packet(from: "127.0.0.1", inner(payloadLength: 9)),
            .drop(.downlinkTruncated)),
        Row(
            "truncated before outer-source-unknown", Policies.remote, remotePacket(from: "198.51.100.8", inner(payloadLength: 9)),
            .drop(.downlinkTruncated)),
        Row(
            "truncated before nested-tunnel", Policies.site, packet(inner(next: 41, payloadLength: 9)), .drop(.downlinkTruncated)),
        Row(
            "outer-source-martian before -unknown", Policies.site, packet(from: "127.0.0.1", inner()),
            .drop(.downlinkOuterSourceMartian)),
        Row(
            "outer-source-martian before nested-tunnel", Policies.site, packet(from: "224.0.0.1", inner(next: 4)),
            .drop(.downlinkOuterSourceMartian)),
        Row(
            "outer-source-unknown before nested-tunnel", Policies.site, packet(from: "192.0.2.1", inner(next: 41)),
            .drop(.downlinkOuterSourceUnknown)),
        Row(
            "outer-source-unknown before nested-tunnel, remote", Policies.remote,
            remotePacket(from: "198.51.100.8", inner(next: 41)), .drop(.downlinkOuterSourceUnknown)),
        Row(
            "nested-tunnel before inner-source-invalid", Policies.site, packet(inner(from: "::1", next: 41)),
            .drop(.downlinkNestedTunnel)),
        Row(
            "nested-tunnel before inner-source-spoofed", Policies.site, packet(from: "10.9.9.9", inner(next: 4)),
            .drop(.downlinkNestedTunnel)),
        Row(
            "nested-tunnel before ecn, remote", Policies.remote, remotePacket(tos: 3, inner(next: 4)),
            .drop(.downlinkNestedTunnel)),
        Row(
            "inner-source-invalid before -destination-invalid", Policies.site, packet(inner(from: "fe80::1", to: "ff02::1")),
            .drop(.downlinkInnerSourceInvalid)),
        Row(
            "inner-source-invalid before -destination-foreign", Policies.site, packet(inner(from: "::1", to: elsewhere)),
            .drop(.downlinkInnerSourceInvalid)),
        Row(
            "inner-source-spoofed before -destination-invalid", Policies.site, packet(from: "10.9.9.9", inner(to: "ff02::1")),
            .drop(.downlinkInnerSourceSpoofed)),
        Row(
            "inner-source-unauthorized before -destination-foreign", Policies.site, packet(inner(from: elsewhere, to: elsewhere)),
            .drop(.downlinkInnerSourceUnauthorized)),
        Row(
            "inner-source-spoofed before ecn", Policies.site, packet(from: "10.9.9.9", tos: 3, inner()),
            .drop(.downlinkInnerSourceSpoofed)),
        Row(
            "inner-destination-invalid before ecn", Policies.site, packet(tos: 3, inner(to: "ff02::1")),
            .drop(.downlinkInnerDestinationInvalid)),
        Row(
            "inner-destination-foreign before ecn", Policies.site, packet(tos: 3, inner(to: elsewhere)),
            .drop(.downlinkInnerDestinationForeign)),
    ]

    @Test(arguments: passing + scapy)
    func passes(row: Row) { check(row) }

    @Test(arguments: EncapsulateTests.otherPayloads)
    func passesWhatIsNoTunnel(row: EncapsulateTests.Row) {
        let (next, payload) = (row.packet[6], Array(row.packet[40...]))
        let packet = Self.packet(Self.inner(next: next, payload: payload))
        let verdict = Policies.site.decapsulate(packet.raw)
        #expect(verdict == Self.deliver(40 + payload.count))
    }

    @Test(arguments: structure)
    func refusesWhatIsNoTunnelPacketOfOurs(row: Row) { check(row) }

    @Test(arguments: outerSources)
    func refusesOuterSources(row: Row) { check(row) }

    @Test(arguments: nested)
    func refusesTunnelsInTheTunnel(row: Row) { check(row) }

    @Test(arguments: ecn)
    func congestionMarks(row: Row) { check(row) }

    @Test(arguments: order)
    func theFirstReasonCounts(row: Row) { check(row) }

    private func check(_ row: Row) {
        let verdict = row.policy.decapsulate(row.packet.raw)
        #expect(verdict == row.verdict)
    }

    // MARK: Batches

    /// Packets with 0xA5 between them.
    private static func lay(_ packets: [[UInt8]], _ batch: inout FixedList<Slice>) -> [UInt8] {
        var memory: [UInt8] = []
        for (index, packet) in packets.enumerated() {
            memory += [UInt8](repeating: 0xA5, count: index * 7 + 3)
            batch.append(Slice(offset: memory.count, length: packet.count))
            memory += packet
        }
        return memory + [0xA5, 0xA5, 0xA5]
    }

    @Test func batchSortsItsPackets() {
        // An unfinished UDP datagram: the field holds the pseudo header's sum.
        let udp = UnfinishedWorkTests.udp(from: Self.peer, to: Self.us, payload: [1, 2, 3])
        // Longer than the MTU of 1480.
        let merged = UnfinishedWorkTests.udp(from: Self.peer, to: Self.us, payload: Array(repeating: 7, count: 1500))
        let plain = [UInt8](repeating: 0, count: 10)
        let needsChecksum: [UInt8] = [1, 0, 0, 0, 0, 0] + Self.native(40) + Self.native(6)
        // Packet; the reason, or where the inner packet begins, its length, traffic class and virtio header.
        let rows: [(packet: [UInt8], reason: DropReason?, at: Int, length: Int, trafficClass: UInt8, virtio: [UInt8])] = [
            (Self.packet(Self.inner()), nil, 20, 48, 0, plain),
            (Self.packet(from: "10.9.9.9", Self.inner()), .downlinkInnerSourceSpoofed, 0, 0, 0, []),
            (Self.packet(tos: 3, Self.inner(trafficClass: 0xBA) + [0xEE, 0xEE]), nil, 20, 48, 0xBB, plain),
            (Self.packet(tos: 1, options: Packets.fullOptions, Self.inner(trafficClass: 0x5E)), nil, 60, 48, 0x5D, plain),
            ([], .downlinkOuterHeader, 0, 0, 0, []),
            (Self.packet([]), .downlinkShort, 0, 0, 0, []),
            (Self.packet(tos: 3, Self.inner()), .downlinkECN, 0, 0, 0, []),
            (Self.packet(udp), nil, 20, udp.count, 0, needsChecksum),
            (Self.packet(merged), .downlinkUnfinishedOversized, 0, 0, 0, []),
            (Self.packet(Self.inner(to: Self.elsewhere)), .downlinkInnerDestinationForeign, 0, 0, 0, []),
            (Self.packet(from: "10.9.9.9", Self.inner()), .downlinkInnerSourceSpoofed, 0, 0, 0, []),
            (Self.packet(tos: 0xFF, Self.inner(payload: [], trafficClass: 3)), nil, 20, 40, 3, plain),
        ]
        var batch = FixedList<Slice>(capacity: rows.count)
        var memory = Self.lay(rows.map(\.packet), &batch)
        var expectedMemory = memory
        var frames = FrameBatch(frames: rows.count, slices: rows.count, packets: rows.count, scratch: 0..<0)
        var counters = Counters()
        var merge = ReceiveMerge(capacity: batch.count, isOn: true)
        memory.withMutableRaw {
            Policies.site.decapsulate(batch, in: &$0, merge: &merge, into: &frames, counters: &counters)
        }

        var (sent, dropped) = (0, 0)
        var expected: [DropReason: UInt64] = [:]
        for (index, row) in rows.enumerated() {
            let slice = batch[index]
            if let reason = row.reason {
                expected[reason, default: 0] += 1
                guard dropped < frames.dropped.count else {
                    Issue.record("only \(dropped) dropped")
                    return
                }
                let forgotten = frames.dropped[dropped]
                #expect(forgotten == slice)
                dropped += 1
                continue
            }
            guard sent < frames.frames.count else {
                Issue.record("only \(sent) frames")
                return
            }
            let frame = frames.frames[sent]
            sent += 1
            #expect(frame.sliceCount == 1)
            #expect(frame.innerLength == UInt32(row.length))
            let written = frames.slices[Int(frame.firstSlice)]
            let start = Int(slice.offset) + row.at
            #expect(written == Slice(offset: start - 10, length: 10 + row.length))
            // All that may change: ten bytes in front, and the class in the first two bytes.
            expectedMemory.replaceSubrange(start - 10..<start, with: row.virtio)
            expectedMemory[start] = 0x60 | row.trafficClass >> 4
            expectedMemory[start + 1] = row.trafficClass << 4
        }
        #expect(memory == expectedMemory)
        let (frameCount, sliceCount, dropCount) = (frames.frames.count, frames.slices.count, frames.dropped.count)
        #expect(frameCount == sent && sliceCount == sent && dropCount == dropped)
        for reason in DropReason.allCases { #expect(counters[reason] == expected[reason, default: 0], "\(reason.name)") }
        #expect(counters.downlinkPackets == 0 && counters.downlinkBytes == 0)
    }

    /// As the machine writes a virtio-net header's numbers.
    private static func native(_ value: UInt16) -> [UInt8] {
        let bytes = Packets.bytes(value)
        return UInt16(littleEndian: 1) == 1 ? bytes.reversed() : bytes
    }

    @Test func theFlowLabelSurvivesTheTrafficClass() {
        let packet = Self.packet(tos: 3, Packets.inner(Self.peer, Self.us, trafficClass: 0xA9, flowLabel: 0xBCDEF))
        var batch = FixedList<Slice>(capacity: 1)
        batch.append(Slice(offset: 0, length: packet.count))
        var memory = packet
        var frames = FrameBatch(frames: 1, slices: 1, packets: 1, scratch: 0..<0)
        var counters = Counters()
        var merge = ReceiveMerge(capacity: batch.count, isOn: true)
        memory.withMutableRaw {
            Policies.site.decapsulate(batch, in: &$0, merge: &merge, into: &frames, counters: &counters)
        }
        #expect(Array(memory[20..<24]) == [0x6A, 0xBB, 0xCD, 0xEF])
        #expect(memory[24...] == packet[24...])
    }

    @Test func theMTUDecidesWhatIsAMergedPacket() {
        let packet = Self.packet(
            UnfinishedWorkTests.udp(from: Self.peer, to: Self.us, payload: Array(repeating: 7, count: 1400)))
        for (mtu, expected) in [(1480, 1), (1448, 1), (1447, 0), (1280, 0)] {
            var policy = Policies.site
            policy.mtu = mtu
            var batch = FixedList<Slice>(capacity: 1)
            batch.append(Slice(offset: 0, length: packet.count))
            var memory = packet
            var frames = FrameBatch(frames: 1, slices: 1, packets: 1, scratch: 0..<0)
            var counters = Counters()
            var merge = ReceiveMerge(capacity: batch.count, isOn: true)
            memory.withMutableRaw {
                policy.decapsulate(batch, in: &$0, merge: &merge, into: &frames, counters: &counters)
            }
            let count = frames.frames.count
            #expect(count == expected, "MTU \(mtu)")
        }
    }

    // MARK: Totality

    private static func isAbsurd(_ verdict: DownlinkVerdict, _ packet: [UInt8]) -> Bool {
        guard case .deliver(let delivery) = verdict else { return false }
        let at = delivery.innerOffset
        return packet.count < 60 || at != Int(packet[0] & 15) * 4 || at + delivery.innerLength > packet.count
            || packet[at] >> 4 != 6
            || delivery.innerLength != 40 + Int(packet[at + 4]) * 256 + Int(packet[at + 5])
    }

    @Test func garbageOfEveryLength() {
        var random = SeededGenerator(seed: 14)
        for length in 0...120 {
            for round in 0..<12 {
                var packet = random.bytes(length)
                if round % 2 == 1 && length >= 60 {
                    packet.replaceSubrange(12..<20, with: [10, 100, 200, 2, 10, 100, 100, 1])
                    packet[0] = 0x45
                    packet[20] = 0x60
                    (packet[24], packet[25]) = (0, UInt8(length - 60))
                    packet[26] = [0, 43, 44, 51, 60, 17].randomElement(using: &random)!
                }
                for policy in Policies.all {
                    let verdict = policy.decapsulate(packet.raw)
                    if Self.isAbsurd(verdict, packet) { Issue.record("\(verdict) for \(packet)") }
                }
            }
        }
    }

    @Test func mutatedPackets() {
        var random = SeededGenerator(seed: 15)
        let good = (Self.passing + Self.scapy + Self.nested + Self.ecn).filter { $0.packet.count < 400 }
        var outcomes: Set<DownlinkVerdict> = []
        for _ in 0..<3000 {
            let row = good.randomElement(using: &random)!
            let packet = row.packet.mutated(&random)
            let verdict = row.policy.decapsulate(packet.raw)
            if Self.isAbsurd(verdict, packet) { Issue.record("\(verdict) for \(packet)") }
            outcomes.insert(verdict)
        }
        #expect(outcomes.count > 20)  // the mutations reach something
    }

    @Test func everyPacketOfARandomBatchHasOneOutcomeAndTouchesNoOther() {
        var random = SeededGenerator(seed: 16)
        let tcp = UnfinishedWorkTests.tcp(from: Self.peer, to: Self.us, payload: Array(repeating: 1, count: 30))
        let good = [Self.packet(Self.inner()), Self.packet(options: Packets.fullOptions, tcp), Self.packet(tcp)]
        for _ in 0..<60 {
            var batch = FixedList<Slice>(capacity: 32)
            let packets = (0..<Int.random(in: 0...32, using: &random)).map { _ in
                good.randomElement(using: &random)!.mutated(&random)
            }
            let before = Self.lay(packets, &batch)
            var memory = before
            var frames = FrameBatch(frames: 32, slices: 32, packets: 32, scratch: 0..<0)
            var counters = Counters()
            var merge = ReceiveMerge(capacity: batch.count, isOn: true)
            memory.withMutableRaw {
                Policies.site.decapsulate(batch, in: &$0, merge: &merge, into: &frames, counters: &counters)
            }
            let (total, sent, dropped) = (batch.count, frames.frames.count, frames.dropped.count)
            #expect(sent + dropped == total)
            #expect(DropReason.allCases.reduce(0) { $0 + counters[$1] } == UInt64(dropped))
            // Undo what may change; the rest must be as it was.
            for index in 0..<sent {
                let frame = frames.frames[index]
                let start = Int(frames.slices[Int(frame.firstSlice)].offset)
                memory.replaceSubrange(start..<start + 12, with: before[start..<start + 12])
            }
            if memory != before { Issue.record("other bytes changed") }
        }
    }
}
