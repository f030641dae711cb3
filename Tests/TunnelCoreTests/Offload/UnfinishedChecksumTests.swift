import Testing
import TunnelCore

@Suite struct UnfinishedChecksumTests {
    static let (peer, us) = ("2001:db8:64c8:200::2", "2001:db8:6464:100::1")

    enum Field { case unfinished, finished, value(UInt16) }

    /// A packet with a transport at its end, its checksum as wanted; `extensions` are whole headers, each naming the next.
    private static func packet(
        from source: String, to destination: String, next: UInt8, extensions: [UInt8], transport: [UInt8], number: UInt8,
        at offset: Int,
        _ field: Field
    ) -> [UInt8] {
        var transport = transport
        let addresses = Packets.bytes(v6(source)) + Packets.bytes(v6(destination))
        let pseudo = NaiveChecksum.pseudoHeader(addresses: addresses, length: transport.count, protocolNumber: number)
        let value: UInt16 =
            switch field {
            case .unfinished: NaiveChecksum.sum(pseudo)
            case .finished: ~NaiveChecksum.sum(pseudo + transport)
            case .value(let value): value
            }
        transport.replaceSubrange(offset..<offset + 2, with: Packets.bytes(value))
        return Packets.inner(source, destination, next: next, payload: extensions + transport)
    }

    static func udp(
        from source: String = peer, to destination: String = us, next: UInt8 = 17, extensions: [UInt8] = [], payload: [UInt8],
        _ field: Field = .unfinished
    ) -> [UInt8] {
        let header =
            Packets.bytes(53 as UInt16) + Packets.bytes(5353 as UInt16) + Packets.bytes(UInt16(8 + payload.count)) + [0, 0]
        return packet(
            from: source, to: destination, next: next, extensions: extensions, transport: header + payload, number: 17, at: 6,
            field)
    }

    static func tcp(
        from source: String = peer, to destination: String = us, next: UInt8 = 6, extensions: [UInt8] = [], options: [UInt8] = [],
        flags: UInt8 = 0x10, payload: [UInt8], _ field: Field = .unfinished
    ) -> [UInt8] {
        let header =
            hex("c35001bb 00000001 00000002") + [UInt8((20 + options.count) / 4) << 4, flags] + hex("0200 0000 0000") + options
        return packet(
            from: source, to: destination, next: next, extensions: extensions, transport: header + payload, number: 6, at: 16,
            field)
    }

    static func zeros(_ count: Int) -> [UInt8] { Array(repeating: 0, count: count) }

    struct Row: CustomTestStringConvertible {
        let name: String
        let packet: [UInt8]
        /// nil: no header can be given.
        let header: VirtioNetHeader?
        var mtu = 1480
        var testDescription: String { name }
    }

    static let plain = VirtioNetHeader()

    static func finish(at start: UInt16, _ offset: UInt16) -> VirtioNetHeader {
        var header = VirtioNetHeader()
        header.needsChecksum = true
        header.checksumStart = start
        header.checksumOffset = offset
        return header
    }

    /// Segments of TCP that make packets of 1280 bytes.
    static func segment(at start: UInt16, headers: UInt16, cwr: Bool = false) -> VirtioNetHeader {
        var header = finish(at: start, 16)
        header.segmentation = .tcp6
        header.headerLength = headers
        header.segmentSize = 1280 - headers
        header.hasECN = cwr
        return header
    }

    // scapy, finished: IPv6(src, dst) / TCP(sport=50000, dport=443, seq=1, ack=2, flags="PA", window=512) / b"hello" and
    // UDP(sport=53, dport=5353) / b"hello". Unfinished: the field is ~checksum(pseudo header) of scapy.utils.
    static let scapyTCP = (
        finished: hex(
            """
            6000000000190640 20010db864c802000000000000000002 20010db8646401000000000000000001
            c35001bb0000000100000002501802007d450000 68656c6c6f
            """),
        unfinished: hex(
            """
            6000000000190640 20010db864c802000000000000000002 20010db8646401000000000000000001
            c35001bb00000001000000025018020027c10000 68656c6c6f
            """)
    )
    static let scapyUDP = (
        finished: hex(
            """
            60000000000d1140 20010db864c802000000000000000002 20010db8646401000000000000000001
            003514e9000d7f42 68656c6c6f
            """),
        unfinished: hex(
            """
            60000000000d1140 20010db864c802000000000000000002 20010db8646401000000000000000001
            003514e9000d27c0 68656c6c6f
            """)
    )

    static let finished = [
        Row(name: "scapy's TCP", packet: scapyTCP.finished, header: plain),
        Row(name: "scapy's UDP", packet: scapyUDP.finished, header: plain),
        Row(name: "TCP with CWR", packet: tcp(flags: 0x90, payload: zeros(9), .finished), header: plain),
        Row(name: "TCP one off", packet: scapyTCP.unfinished.replacing(57, with: 0xC2), header: plain),
        Row(name: "TCP, the complement", packet: tcp(payload: zeros(5), .value(~0x27C1)), header: plain),
        Row(name: "reassembled TCP, longer than the MTU", packet: tcp(payload: zeros(3000), .finished), header: plain),
        Row(name: "reassembled UDP, longer than the MTU", packet: udp(payload: zeros(3000), .finished), header: plain),
        Row(name: "UDP without a checksum", packet: udp(payload: zeros(5), .value(0)), header: plain),
        Row(name: "UDP without a checksum, longer than the MTU", packet: udp(payload: zeros(3000), .value(0)), header: plain),
        Row(name: "no transport", packet: Packets.inner(peer, us), header: plain),
        Row(name: "ICMPv6", packet: Packets.inner(peer, us, next: 58, payload: hex("800058a200010002")), header: plain),
        Row(name: "TCP of 19 bytes", packet: Packets.inner(peer, us, next: 6, payload: zeros(19)), header: plain),
        Row(name: "UDP of 7 bytes", packet: Packets.inner(peer, us, next: 17, payload: zeros(7)), header: plain),
        Row(name: "no payload", packet: Packets.inner(peer, us, next: 6, payload: []), header: plain),
    ]

    static let unfinished = [
        Row(name: "scapy's TCP", packet: scapyTCP.unfinished, header: finish(at: 40, 16)),
        Row(name: "scapy's UDP", packet: scapyUDP.unfinished, header: finish(at: 40, 6)),
        Row(name: "TCP without payload", packet: tcp(payload: []), header: finish(at: 40, 16)),
        Row(name: "UDP without payload", packet: udp(payload: []), header: finish(at: 40, 6)),
        Row(name: "TCP with options", packet: tcp(options: zeros(40), payload: zeros(3)), header: finish(at: 40, 16)),
        Row(name: "TCP with CWR, but one packet", packet: tcp(flags: 0x90, payload: zeros(3)), header: finish(at: 40, 16)),
        Row(
            name: "TCP behind hop-by-hop", packet: tcp(next: 0, extensions: Packets.extensionHeader(next: 6), payload: zeros(3)),
            header: finish(at: 48, 16)),
        Row(
            name: "UDP behind two headers",
            packet: udp(
                next: 0, extensions: Packets.extensionHeader(next: 60) + Packets.extensionHeader(next: 17), payload: zeros(3)),
            header: finish(at: 56, 6)),
        Row(
            name: "TCP behind a routing header that is done",
            packet: tcp(next: 43, extensions: [6, 0, 0, 0, 0, 0, 0, 0], payload: zeros(3)), header: finish(at: 48, 16)),
        Row(name: "TCP as long as the MTU", packet: tcp(payload: zeros(1420)), header: finish(at: 40, 16)),
        Row(name: "UDP as long as the MTU", packet: udp(payload: zeros(1432)), header: finish(at: 40, 6)),
        Row(name: "TCP as long as a large MTU", packet: tcp(payload: zeros(8920)), header: finish(at: 40, 16), mtu: 8980),
    ]

    static let merged = [
        Row(name: "TCP", packet: tcp(payload: zeros(3000)), header: segment(at: 40, headers: 60)),
        Row(name: "TCP one byte longer than the MTU", packet: tcp(payload: zeros(1421)), header: segment(at: 40, headers: 60)),
        Row(
            name: "TCP one byte longer than a small MTU", packet: tcp(payload: zeros(1221)), header: segment(at: 40, headers: 60),
            mtu: 1280),
        Row(
            name: "TCP, 12 bytes of options", packet: tcp(options: zeros(12), payload: zeros(3000)),
            header: segment(at: 40, headers: 72)),
        Row(
            name: "TCP, 40 bytes of options", packet: tcp(options: zeros(40), payload: zeros(3000)),
            header: segment(at: 40, headers: 100)),
        Row(
            name: "TCP with CWR", packet: tcp(flags: 0x90, payload: zeros(3000)), header: segment(at: 40, headers: 60, cwr: true)),
        Row(name: "TCP with ECE alone", packet: tcp(flags: 0x50, payload: zeros(3000)), header: segment(at: 40, headers: 60)),
        Row(
            name: "TCP behind destination options",
            packet: tcp(next: 60, extensions: Packets.extensionHeader(next: 6), payload: zeros(3000)),
            header: segment(at: 48, headers: 68)),
        Row(name: "TCP, 64 KiB", packet: tcp(payload: zeros(65495)), header: segment(at: 40, headers: 60)),
        // How many datagrams it is, is not seen here.
        Row(name: "UDP", packet: udp(payload: zeros(3000)), header: finish(at: 40, 6)),
        Row(name: "UDP one byte longer than the MTU", packet: udp(payload: zeros(1433)), header: finish(at: 40, 6)),
        Row(
            name: "UDP behind hop-by-hop",
            packet: udp(next: 0, extensions: Packets.extensionHeader(next: 17), payload: zeros(1500)), header: finish(at: 48, 6)),
    ]

    // Fields that hold what would be the pseudo header's sum, where it means nothing.
    static let leftAlone: [Row] = [
        Row(
            name: "first fragment of TCP",
            packet: tcp(next: 44, extensions: Packets.fragmentHeader(next: 6, more: true), payload: zeros(8)),
            header: plain),
        Row(
            name: "later fragment that looks like TCP",
            packet: tcp(next: 44, extensions: Packets.fragmentHeader(next: 6, offset: 9, more: false), payload: zeros(8)),
            header: plain),
        Row(
            name: "atomic fragment of UDP",
            packet: udp(next: 44, extensions: Packets.fragmentHeader(next: 17, more: false), payload: zeros(8)),
            header: plain),
        Row(
            name: "first fragment of UDP, longer than the MTU",
            packet: udp(next: 44, extensions: Packets.fragmentHeader(next: 17, more: true), payload: zeros(3000)), header: plain),
        Row(
            name: "TCP behind a routing header with a segment left",
            packet: tcp(next: 43, extensions: [6, 0, 0, 1, 0, 0, 0, 0], payload: zeros(3)), header: plain),
        Row(
            name: "UDP behind a routing header with a segment left, longer than the MTU",
            packet: udp(next: 43, extensions: [17, 0, 0, 2, 0, 0, 0, 0], payload: zeros(3000)), header: plain),
    ]

    @Test(arguments: finished)
    func finishedPacketsStayAsTheyAre(row: Row) { check(row) }

    @Test(arguments: unfinished)
    func unfinishedOnesAreToBeFinished(row: Row) { check(row) }

    @Test(arguments: merged)
    func mergedOnesAreToBeSegmented(row: Row) { check(row) }

    @Test(arguments: leftAlone)
    func fragmentsAndRoutedPacketsAreLeftAlone(row: Row) { check(row) }

    private func check(_ row: Row) {
        let header = VirtioNetHeader(delivering: row.packet.raw, mtu: row.mtu)
        #expect(header == row.header)
    }

    /// What the kernel does with NEEDS_CSUM (`skb_checksum_help`).
    private static func finishing(_ packet: [UInt8], _ header: VirtioNetHeader) -> [UInt8] {
        var packet = packet
        let field = Int(header.checksumStart + header.checksumOffset)
        packet.replaceSubrange(field..<field + 2, with: Packets.bytes(~NaiveChecksum.sum(packet[Int(header.checksumStart)...])))
        return packet
    }

    @Test func theKernelThenComesToScapysChecksum() throws {
        for vector in [Self.scapyTCP, Self.scapyUDP] {
            let answer = VirtioNetHeader(delivering: vector.unfinished.raw, mtu: 1480)
            let header = try #require(answer)
            #expect(Self.finishing(vector.unfinished, header) == vector.finished)
        }
    }

    // One finished checksum in 65535 is the pseudo header's sum by chance. Finishing it again must not change it.
    @Test(arguments: [6, 17] as [UInt8])
    func finishingAFinishedOneChangesNothing(number: UInt8) throws {
        let addresses = Packets.bytes(v6(Self.peer)) + Packets.bytes(v6(Self.us))
        for length in stride(from: 2, to: 60, by: 7) {
            // The first word of the payload makes the whole sum come out right.
            let empty = number == 6 ? Self.tcp(payload: Self.zeros(length)) : Self.udp(payload: Self.zeros(length))
            let pseudo = NaiveChecksum.pseudoHeader(addresses: addresses, length: empty.count - 40, protocolNumber: number)
            let word = ~NaiveChecksum.sum(pseudo + empty[40...])
            let payload = Packets.bytes(word) + Self.zeros(length - 2)
            let packet = number == 6 ? Self.tcp(payload: payload) : Self.udp(payload: payload)
            #expect(NaiveChecksum.sum(pseudo + packet[40...]) == 0xFFFF)  // it is finished
            let answer = VirtioNetHeader(delivering: packet.raw, mtu: 1480)
            let header = try #require(answer)
            #expect(header.needsChecksum)
            #expect(Self.finishing(packet, header) == packet)
        }
    }

    @Test func anyBytesHaveAnAnswer() {
        var random = SeededGenerator(seed: 18)
        let good = (Self.finished + Self.unfinished + Self.leftAlone).map(\.packet).filter { $0.count < 200 }
        for round in 0..<3000 {
            let packet = round % 2 == 0 ? random.bytes(round / 2 % 121) : good.randomElement(using: &random)!.mutated(&random)
            guard let header = VirtioNetHeader(delivering: packet.raw, mtu: 1280) else { continue }
            let end = Int(header.checksumStart) + Int(header.checksumOffset) + 2
            if header.needsChecksum && end > packet.count { Issue.record("\(header) for \(packet)") }
        }
    }
}

extension [UInt8] {
    fileprivate func replacing(_ index: Int, with byte: UInt8) -> [UInt8] {
        var bytes = self
        bytes[index] = byte
        return bytes
    }
}
