import Testing
import TunnelCore

/// IPv4 in IPv4, between 192.0.2.1 (we) and 198.51.100.7. Inside, 172.16.1.1 is behind us and 172.16.2.1 behind the peer.
@Suite struct InnerIPv4Tests {
    static let (near, far) = ("172.16.1.1", "172.16.2.1")

    static func up(
        protocolNumber: UInt8 = 253, payload: [UInt8] = Array("12345678".utf8), tos: UInt8 = 0, ttl: UInt8 = 64,
        fragment: UInt16 = 0x4000, options: [UInt8] = [], totalLength: Int? = nil
    ) -> [UInt8] {
        Packets.ipv4(
            near, far, protocolNumber: protocolNumber, payload: payload, tos: tos, ttl: ttl, fragment: fragment, options: options,
            totalLength: totalLength)
    }

    static func down(_ inner: [UInt8], from: String = "198.51.100.7", to: String = "192.0.2.1", tos: UInt8 = 0) -> [UInt8] {
        Packets.ipv4(from, to, protocolNumber: 4, payload: inner, tos: tos)
    }

    // MARK: Uplink

    struct Uplink: CustomTestStringConvertible {
        let name: String
        let packet: [UInt8]
        let verdict: UplinkVerdict
        var policy = Policies.any
        var testDescription: String { name }

        init(_ name: String, _ packet: [UInt8], _ verdict: UplinkVerdict, _ policy: TunnelPolicy = Policies.any) {
            (self.name, self.packet, self.verdict, self.policy) = (name, packet, verdict, policy)
        }
    }

    static func send(_ length: Int, ttl: UInt8 = 64, tos: UInt8 = 0, dontFragment: Bool = true) -> UplinkVerdict {
        .send(
            OuterHeader(
                destination: v4("198.51.100.7"), ttl: ttl, tos: tos, protocolNumber: 4, dontFragment: dontFragment),
            innerLength: length)
    }

    static var fragmenting: TunnelPolicy {
        var policy = Policies.any
        policy.dontFragment = false
        return policy
    }

    static let uplink = [
        Uplink("mode any", up(), send(28)),
        Uplink("mode ipip", up(), send(28), Policies.ipip),
        Uplink("without payload", up(payload: []), send(20)),
        Uplink("with options", up(options: Packets.fullOptions), send(68)),
        Uplink("with padding behind it", up() + [0, 0, 0], send(28)),
        Uplink("a later fragment", up(fragment: 0x00B9), send(28)),
        Uplink("TOS", up(tos: 0xBA), send(28, tos: 0xBA)),
        Uplink("CE", up(tos: 0xBB), send(28, tos: 0xBA)),
        Uplink("fixed TOS", up(tos: 0xB9), send(28, tos: 0x11), Policies.any.with(tos: .fixed(0x10))),
        Uplink("inherited TTL", up(ttl: 3), send(28, ttl: 3), Policies.any.with(ttl: .inherit)),
        Uplink("no TTL to inherit", up(ttl: 0), .drop(.uplinkHopLimitZero), Policies.any.with(ttl: .inherit)),
        Uplink("no DF inside: the tunnel's", up(fragment: 0), send(28)),
        Uplink("DF inside alone", up(), send(28), fragmenting),
        Uplink("no DF at all", up(fragment: 0), send(28, dontFragment: false), fragmenting),
        Uplink("more fragments is no DF", up(fragment: 0x2000), send(28, dontFragment: false), fragmenting),

        Uplink("mode ip6ip", up(payload: Array(repeating: 0, count: 20)), .drop(.uplinkNotIPv6), Policies.remote),
        Uplink("mode ip6ip, short", up(payload: []), .drop(.uplinkShort), Policies.remote),
        Uplink("a domain", up(payload: Array(repeating: 0, count: 20)), .drop(.uplinkNotIPv6), Policies.site.with(mode: .any)),
        Uplink("nothing", [], .drop(.uplinkShort)),
        Uplink("19 bytes", Array(up()[..<19]), .drop(.uplinkShort)),
        Uplink("IPv6 of 39 bytes", Array(Packets.inner("fd00::1", "fd00::2")[..<39]), .drop(.uplinkShort)),
        Uplink("IPv6 in mode ipip", Packets.inner("fd00::1", "fd00::2"), .drop(.uplinkNotIPv4), Policies.ipip),
        Uplink("version 5", [0x55] + up()[1...], .drop(.uplinkNotIPv6)),
        Uplink("version 5 in mode ipip", [0x55] + up()[1...], .drop(.uplinkNotIPv4), Policies.ipip),
        Uplink("a header of 16 bytes", [0x44] + up()[1...], .drop(.uplinkTruncated)),
        Uplink("options cut off", Array(up(options: Packets.fullOptions)[..<59]), .drop(.uplinkTruncated)),
        Uplink("one byte cut off", up(totalLength: 29), .drop(.uplinkTruncated)),
        Uplink("shorter than its header", up(totalLength: 19), .drop(.uplinkTruncated)),
        Uplink("shorter than its options", up(options: Packets.fullOptions, totalLength: 59), .drop(.uplinkTruncated)),
        Uplink("of no length", up(totalLength: 0), .drop(.uplinkTruncated)),
        Uplink("65,515 bytes", up(payload: Array(repeating: 0, count: 65495)), send(65515)),
        Uplink("65,516 bytes", up(payload: Array(repeating: 0, count: 65496)), .drop(.uplinkOversized)),
        Uplink("4 in 4", up(protocolNumber: 4), .drop(.uplinkNestedTunnel)),
        Uplink("4 in 4, unchecked", up(protocolNumber: 4), send(28), Policies.any.with(sourceCheck: .sit)),
        Uplink("6 in 4", up(protocolNumber: 41), .drop(.uplinkNestedTunnel)),
        Uplink("a later fragment of 6 in 4", up(protocolNumber: 41, fragment: 5), .drop(.uplinkNestedTunnel)),
        Uplink(
            "IPv6 beside it", Packets.inner("fd00::1", "fd00::2"),
            .send(OuterHeader(destination: v4("198.51.100.7"), ttl: 64, tos: 0), innerLength: 48)),
    ]

    @Test(arguments: uplink)
    func judgesWhatTheTUNHandsOver(row: Uplink) { #expect(row.policy.encapsulate(row.packet.raw) == row.verdict) }

    // MARK: Downlink

    struct Downlink: CustomTestStringConvertible {
        let name: String
        let packet: [UInt8]
        let verdict: DownlinkVerdict
        var policy = Policies.any
        var testDescription: String { name }

        init(_ name: String, _ packet: [UInt8], _ verdict: DownlinkVerdict, _ policy: TunnelPolicy = Policies.any) {
            (self.name, self.packet, self.verdict, self.policy) = (name, packet, verdict, policy)
        }
    }

    static func deliver(at offset: Int = 20, _ length: Int, tos: UInt8 = 0) -> DownlinkVerdict {
        .deliver(Delivery(innerOffset: offset, innerLength: length, trafficClass: tos, isIPv4: true))
    }

    static let good = Packets.ipv4(far, near)

    static let downlink =
        [
            Downlink("mode any", down(good), deliver(28)),
            Downlink("mode ipip", down(good), deliver(28), Policies.ipip),
            Downlink("padding", down(good + [1, 2, 3]), deliver(28)),
            Downlink("options inside", down(Packets.ipv4(far, near, options: Packets.fullOptions)), deliver(68)),
            Downlink(
                "options outside",
                Packets.ipv4("198.51.100.7", "192.0.2.1", protocolNumber: 4, payload: good, options: Packets.fullOptions),
                deliver(at: 60, 28)),
            Downlink("marked", down(Packets.ipv4(far, near, tos: 0xBA), tos: 3), deliver(28, tos: 0xBB)),
            Downlink("DSCP stays", down(Packets.ipv4(far, near, tos: 0xB8), tos: 0x20), deliver(28, tos: 0xB8)),
            Downlink("marked, but cannot be", down(good, tos: 3), .drop(.downlinkECN)),
            Downlink("private source", down(Packets.ipv4("10.1.2.3", near)), deliver(28)),

            Downlink("mode ip6ip", down(good), .drop(.downlinkOuterSourceUnknown), Policies.remote),
            Downlink(
                "a domain", down(good, to: "10.100.100.1"), .drop(.downlinkOuterSourceUnknown), Policies.site.with(mode: .any)),
            Downlink("from another host", down(good, from: "198.51.100.8"), .drop(.downlinkOuterSourceUnknown)),
            Downlink("to another address", down(good, to: "192.0.2.2"), .drop(.downlinkOuterDestination)),
            Downlink("nothing inside", down([]), .drop(.downlinkShort)),
            Downlink("19 bytes inside", down(Array(good[..<19])), .drop(.downlinkShort)),
            Downlink("IPv6 in protocol 4", down(Packets.inner("fd00::1", "fd00::2")), .drop(.downlinkNotIPv4)),
            Downlink(
                "IPv4 in protocol 41", Packets.outer("198.51.100.7", "192.0.2.1", good + Array(repeating: 0, count: 20)),
                .drop(.downlinkNotIPv6)),
            Downlink("a header of 16 bytes", down([0x44] + good[1...]), .drop(.downlinkTruncated)),
            Downlink("one byte cut off", down(Array(good[..<27])), .drop(.downlinkTruncated)),
            Downlink("shorter than its header", down(Packets.ipv4(far, near, totalLength: 19)), .drop(.downlinkTruncated)),
            Downlink(
                "4 in 4 in 4, unchecked", down(Packets.ipv4(far, near, protocolNumber: 4)), deliver(28),
                Policies.any.with(sourceCheck: .sit)),
            Downlink(
                "from 127.0.0.1, unchecked", down(Packets.ipv4("127.0.0.1", near)), deliver(28),
                Policies.any.with(sourceCheck: .off)),
            Downlink(
                "from another host, unchecked", down(good, from: "198.51.100.8"), .drop(.downlinkOuterSourceUnknown),
                Policies.any.with(sourceCheck: .off)),
            Downlink("4 in 4 in 4", down(Packets.ipv4(far, near, protocolNumber: 4)), .drop(.downlinkNestedTunnel)),
            Downlink("6 in 4 in 4", down(Packets.ipv4(far, near, protocolNumber: 41)), .drop(.downlinkNestedTunnel)),
        ]
        + ["0.0.0.0", "0.255.1.2", "127.0.0.1", "224.0.0.1", "239.1.2.3", "255.255.255.255"].map {
            Downlink("from \($0)", down(Packets.ipv4($0, near)), .drop(.downlinkInnerSourceInvalid))
        }

    @Test(arguments: downlink)
    func judgesWhatTheSocketHandsOver(row: Downlink) { #expect(row.policy.decapsulate(row.packet.raw) == row.verdict) }

    @Test(arguments: [0, 1, 2, 3] as [UInt8], [0xB8, 0xB9, 0xBA, 0xBB, 0x03] as [UInt8])
    func theHeaderChecksumFollowsTheMark(outer: UInt8, inner: UInt8) throws {
        guard let marked = ECN.decapsulate(outer: outer, inner: inner) else { return }
        var bench = DownlinkBench([Self.down(Packets.ipv4(Self.far, Self.near, tos: inner), tos: outer)])
        #expect(bench.run(Policies.any).map(\.packet) == [Packets.ipv4(Self.far, Self.near, tos: marked)])
    }

    // MARK: Checksums and super-packets

    /// A TCP segment or UDP datagram inside IPv4.
    static func transport(
        _ source: String, _ destination: String, isTCP: Bool = true, payload: [UInt8], sequence: UInt32 = 1, flags: UInt8 = 0x10,
        identification: UInt16 = 1, options: [UInt8] = [], _ field: Transport.Field = .finished
    ) -> [UInt8] {
        let ports = Packets.bytes(443 as UInt16) + Packets.bytes(40000 as UInt16)
        var segment =
            isTCP
            ? ports + Packets.bytes(sequence) + Packets.bytes(9 as UInt32) + [0x50, flags, 1, 0, 0, 0, 0, 0] + payload
            : ports + Packets.bytes(UInt16(8 + payload.count)) + [0, 0] + payload
        let pseudo =
            Packets.bytes(v4(source).rawValue) + Packets.bytes(v4(destination).rawValue) + [0, isTCP ? 6 : 17]
            + Packets.bytes(UInt16(segment.count))
        let value: UInt16 =
            switch field {
            case .finished: ~NaiveChecksum.sum(pseudo + segment)
            case .unfinished: NaiveChecksum.sum(pseudo)
            case .wrong: ~NaiveChecksum.sum(pseudo + segment) ^ 0x0101
            case .value(let value): value
            }
        let at = isTCP ? 16 : 6
        segment.replaceSubrange(at..<at + 2, with: Packets.bytes(value))
        return Packets.ipv4(
            source, destination, protocolNumber: isTCP ? 6 : 17, payload: segment, identification: identification,
            options: options)
    }

    static func virtio(
        _ segmentation: VirtioNetHeader.Segmentation = .none, size: UInt16 = 0, at start: UInt16 = 20, isTCP: Bool = true
    ) -> VirtioNetHeader {
        var header = VirtioNetHeader()
        header.needsChecksum = true
        (header.segmentation, header.segmentSize) = (segmentation, size)
        (header.checksumStart, header.checksumOffset) = (start, isTCP ? 16 : 6)
        return header
    }

    static func read(_ header: VirtioNetHeader, _ packet: [UInt8]) -> [UInt8] {
        written(10, over: 0) { header.emit(into: &$0) } + packet
    }

    @Test(arguments: [true, false], [[], Packets.fullOptions])
    func whatTheTUNLeftUnfinishedIsFinished(isTCP: Bool, options: [UInt8]) {
        let payload = Transport.pattern(99)
        func packet(_ field: Transport.Field) -> [UInt8] {
            Self.transport(Self.near, Self.far, isTCP: isTCP, payload: payload, options: options, field)
        }
        var bench = UplinkBench([Self.read(Self.virtio(at: UInt16(20 + options.count), isTCP: isTCP), packet(.unfinished))])
        let frames = bench.run(Policies.any)
        #expect(frames.map(\.bytes) == [packet(.finished)])
        #expect(frames.map(\.outer.protocolNumber) == [4])
    }

    @Test(arguments: [true, false])
    func superPacketsAreCut(isTCP: Bool) {
        let payload = Transport.pattern(3500)
        let whole = Self.transport(
            Self.near, Self.far, isTCP: isTCP, payload: payload, sequence: 0xFFFF_FF00, flags: 0x99, identification: 0xFFFE,
            .unfinished)
        var bench = UplinkBench([Self.read(Self.virtio(isTCP ? .tcp4 : .udp, size: 1400, isTCP: isTCP), whole)])
        let frames = bench.run(Policies.any)
        // CWR on the first, FIN and PSH on the last; the identification counts on.
        let flags: [UInt8] = [0x90, 0x10, 0x19]
        var expected: [[UInt8]] = []
        for index in 0..<3 {
            let part = Array(payload[index * 1400..<min(index * 1400 + 1400, 3500)])
            expected.append(
                Self.transport(
                    Self.near, Self.far, isTCP: isTCP, payload: part, sequence: 0xFFFF_FF00 &+ UInt32(index * 1400),
                    flags: flags[index], identification: 0xFFFE &+ UInt16(index)))
        }
        #expect(frames.map(\.bytes) == expected)
        #expect(frames.allSatisfy { $0.outer.protocolNumber == 4 })
        #expect(bench.counters.splitPackets == 1)
    }

    @Test(arguments: [
        ("cut as TCP over IPv6", virtio(.tcp6, size: 1400), transport(near, far, payload: [1], .unfinished)),
        (
            "a fragment", virtio(.tcp4, size: 1400),
            Packets.ipv4(near, far, protocolNumber: 6, payload: Array(repeating: 0x50, count: 40), fragment: 0x2000)
        ),
        (
            "no TCP", virtio(.tcp4, size: 1400),
            transport(near, far, isTCP: false, payload: Array(repeating: 0, count: 40), .unfinished)
        ),
        ("a checksum in the IPv4 header", virtio(at: 4), transport(near, far, payload: [1], .unfinished)),
        (
            "a checksum in the options", virtio(at: 20),
            transport(near, far, payload: [], options: Packets.fullOptions, .unfinished)
        ),
        ("a checksum behind the end", virtio(at: 60), transport(near, far, payload: [], .unfinished)),
    ])
    func requestsThatMakeNoSense(name: String, virtio: VirtioNetHeader, packet: [UInt8]) {
        var bench = UplinkBench([Self.read(virtio, packet)])
        let frames = bench.run(Policies.any)
        #expect(frames.isEmpty)
        #expect(bench.counters[.uplinkOffload] == 1)
    }

    struct Delivered: CustomTestStringConvertible {
        let name: String
        let packet: [UInt8]
        let virtio: VirtioNetHeader?
        var testDescription: String { name }
    }

    static func merged(_ headers: UInt16) -> VirtioNetHeader {
        var header = virtio(.tcp4, size: 1280 - headers, at: headers - 20)
        header.headerLength = headers
        return header
    }

    static let long = Transport.pattern(4000)
    static let delivered = [
        Delivered(name: "finished", packet: transport(far, near, payload: [1]), virtio: VirtioNetHeader()),
        Delivered(name: "wrong", packet: transport(far, near, payload: [1], .wrong), virtio: VirtioNetHeader()),
        Delivered(name: "unfinished", packet: transport(far, near, payload: [1], .unfinished), virtio: virtio()),
        Delivered(
            name: "unfinished UDP", packet: transport(far, near, isTCP: false, payload: [1], .unfinished),
            virtio: virtio(isTCP: false)),
        Delivered(
            name: "UDP without checksum", packet: transport(far, near, isTCP: false, payload: [1], .value(0)),
            virtio: VirtioNetHeader()),
        Delivered(
            name: "behind options", packet: transport(far, near, payload: [1], options: Packets.fullOptions, .unfinished),
            virtio: virtio(at: 60)),
        Delivered(name: "merged TCP", packet: transport(far, near, payload: long, .unfinished), virtio: merged(40)),
        Delivered(
            name: "merged TCP behind options",
            packet: transport(far, near, payload: long, options: Packets.fullOptions, .unfinished), virtio: merged(80)),
        Delivered(name: "reassembled TCP", packet: transport(far, near, payload: long), virtio: VirtioNetHeader()),
        Delivered(name: "merged UDP", packet: transport(far, near, isTCP: false, payload: long, .unfinished), virtio: nil),
        Delivered(
            name: "a fragment that looks unfinished",
            packet: Packets.ipv4(
                far, near, protocolNumber: 6, payload: Array(transport(far, near, payload: [], .unfinished)[20...]),
                fragment: 0x2000), virtio: VirtioNetHeader()),
        Delivered(
            name: "TCP of 19 bytes", packet: Packets.ipv4(far, near, protocolNumber: 6, payload: Array(long[..<19])),
            virtio: VirtioNetHeader()),
        Delivered(name: "neither TCP nor UDP", packet: good, virtio: VirtioNetHeader()),
    ]

    @Test(arguments: delivered)
    func theTUNFinishesWhatArrivesUnfinished(row: Delivered) {
        var bench = DownlinkBench([Self.down(row.packet)])
        let frames = bench.run(Policies.any, witness: nil)
        #expect(frames.map(\.bytes) == [row.virtio].compactMap(\.self).map { Self.read($0, row.packet) })
        #expect(bench.counters[.downlinkUnfinishedOversized] == (row.virtio == nil ? 1 : 0))
    }

    @Test(arguments: [true, false])
    func mssIsClampedToWhatIPv4HeadersLeave(isUp: Bool) {
        var policy = Policies.any
        policy.mssClamp = MSSClamp(mtu: 1480)
        func syn(_ size: UInt16) -> [UInt8] {
            // The option stands where the payload would.
            var packet = Self.transport(
                isUp ? Self.near : Self.far, isUp ? Self.far : Self.near, payload: [2, 4] + Packets.bytes(size), flags: 2,
                .value(0))
            packet[32] = 0x60
            let pseudo = packet[12..<20] + [0, 6, 0, 24]
            packet.replaceSubrange(36..<38, with: Packets.bytes(~NaiveChecksum.sum(pseudo + packet[20...])))
            return packet
        }
        var up = UplinkBench([Self.read(VirtioNetHeader(), syn(1460))])
        var down = DownlinkBench([Self.down(syn(1460))])
        let seen = isUp ? up.run(policy).map(\.bytes) : down.run(policy).map(\.packet)
        #expect(seen == [syn(1440)])
    }

    /// IPv4 goes as it is, between packets of IPv6 that are merged all the same.
    @Test func mergingOfIPv6DoesNotMindIPv4() {
        func tcp6(_ sequence: UInt32) -> [UInt8] {
            var segment = Transport()
            (segment.sequence, segment.payload) = (sequence, Transport.pattern(100))
            return Packets.outer("198.51.100.7", "192.0.2.1", segment.bytes)
        }
        let ipv4 = [1, 101, 201].map { Self.transport(Self.far, Self.near, payload: Transport.pattern(100), sequence: $0) }
        var bench = DownlinkBench([tcp6(1), Self.down(ipv4[0]), tcp6(101), Self.down(ipv4[1]), tcp6(201), Self.down(ipv4[2])])
        let frames = bench.run(Policies.any)
        #expect(frames.map(\.packetCount) == [3, 1, 1, 1])
        #expect(frames.dropFirst().map(\.packet) == ipv4)
    }

    // MARK: Totality

    @Test func anyBytesHaveAVerdict() {
        var random = SeededGenerator(seed: 20)
        let good = Self.uplink.map(\.packet).filter { $0.count < 200 } + Self.delivered.map(\.packet).filter { $0.count < 200 }
        for round in 0..<4000 {
            var packet = round % 2 == 0 ? random.bytes(round / 2 % 121) : good.randomElement(using: &random)!.mutated(&random)
            if round % 4 == 0 && !packet.isEmpty { packet[0] = 0x45 }
            for policy in [Policies.any, Policies.ipip, Policies.remote] {
                if case .send(_, let length) = policy.encapsulate(packet.raw), length > packet.count {
                    Issue.record("\(length) of \(packet)")
                }
                var header = Self.virtio([.none, .tcp4, .tcp6, .udp].randomElement(using: &random)!, size: 7)
                header.checksumStart = .random(in: 0...70, using: &random)
                var up = UplinkBench([Self.read(header, packet)])
                _ = up.run(policy)
                var down = DownlinkBench([Self.down(packet)])
                for frame in down.run(policy) where frame.bytes.count > packet.count + 10 { Issue.record("\(packet)") }
            }
        }
    }
}
