import Testing
import TunnelCore

@Suite struct UnfinishedWorkTests {
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
        /// nil: nobody saw it arrive.
        var count: PacketCount?
        /// What goes into the checksum field.
        var checksum: UInt16?
        var isOfUnknownParts = false
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
    ]

    /// Of at most 1280 bytes: there may be several packets in it, and it passes every link.
    static let short = [
        Row(name: "TCP", packet: tcp(payload: zeros(600)), header: finish(at: 40, 16)),
        Row(name: "TCP of 1280 bytes", packet: tcp(payload: zeros(1220)), header: finish(at: 40, 16)),
        Row(name: "TCP with CWR", packet: tcp(flags: 0x90, payload: zeros(9)), header: finish(at: 40, 16)),
    ]

    // MARK: Seen by a witness

    /// Segments of that many bytes of payload.
    static func segment(_ size: UInt16, isTCP: Bool = true, at start: UInt16 = 40, headers: UInt16 = 60, cwr: Bool = false)
        -> VirtioNetHeader
    {
        var header = finish(at: start, isTCP ? 16 : 6)
        header.segmentation = isTCP ? .tcp6 : .udp
        header.headerLength = headers
        header.segmentSize = size
        header.hasECN = cwr
        return header
    }

    static let several = [
        Row(name: "within the MTU", packet: tcp(payload: zeros(1000)), header: segment(500), count: .several(of: 500)),
        Row(name: "the last one shorter", packet: tcp(payload: zeros(1001)), header: segment(1000), count: .several(of: 1000)),
        Row(name: "longer than the MTU", packet: tcp(payload: zeros(4000)), header: segment(1400), count: .several(of: 1400)),
        Row(
            name: "of more bytes than the MTU", packet: tcp(payload: zeros(40000)), header: segment(8940),
            count: .several(of: 8940)),
        Row(name: "a byte each", packet: tcp(payload: zeros(2)), header: segment(1), count: .several(of: 1)),
        Row(
            name: "with options", packet: tcp(options: zeros(12), payload: zeros(3000)), header: segment(1428, headers: 72),
            count: .several(of: 1428)),
        Row(
            name: "with CWR", packet: tcp(flags: 0x90, payload: zeros(900)), header: segment(500, cwr: true),
            count: .several(of: 500)),
        Row(
            name: "behind hop-by-hop", packet: tcp(next: 0, extensions: Packets.extensionHeader(next: 6), payload: zeros(900)),
            header: segment(500, at: 48, headers: 68), count: .several(of: 500)),
        Row(
            name: "UDP within the MTU", packet: udp(payload: zeros(1000)), header: segment(500, isTCP: false, headers: 48),
            count: .several(of: 500)),
        // What cannot be is not believed.
        Row(
            name: "of no bytes", packet: tcp(payload: zeros(3000)), header: segment(1220), count: .several(of: 0),
            isOfUnknownParts: true),
        Row(
            name: "of less", packet: tcp(payload: zeros(3000)), header: segment(1220), count: .several(of: -1),
            isOfUnknownParts: true),
        Row(
            name: "of as many bytes as there are", packet: tcp(payload: zeros(3000)), header: segment(1220),
            count: .several(of: 3000), isOfUnknownParts: true),
        Row(
            name: "of as many bytes as there are, a few", packet: tcp(payload: zeros(30)), header: finish(at: 40, 16),
            count: .several(of: 30), isOfUnknownParts: true),
        Row(name: "UDP of as many bytes as there are", packet: udp(payload: zeros(30)), header: nil, count: .several(of: 30)),
        Row(name: "UDP of which notes were lost", packet: udp(payload: zeros(30)), header: nil, count: .unknown),
        Row(name: "a finished one of which notes were lost", packet: scapyUDP.finished, header: plain, count: .unknown),
    ]

    /// Merged by lists: all payload behind the first segment's checksum.
    static func list(
        isTCP: Bool = true, _ payload: [UInt8], of size: Int, extensions: [UInt8] = [], noted: Int? = nil,
        _ field: Field = .finished
    ) -> (packet: [UInt8], count: PacketCount, checksum: UInt16) {
        func packet(_ payload: [UInt8], _ field: Field) -> [UInt8] {
            let next: UInt8 = extensions.isEmpty ? (isTCP ? 6 : 17) : 0
            return isTCP
                ? tcp(next: next, extensions: extensions, payload: payload, field)
                : udp(next: next, extensions: extensions, payload: payload, field)
        }
        let at = 40 + extensions.count + (isTCP ? 16 : 6)
        let first = packet(Array(payload[..<size]), field)
        let all = packet(payload, .unfinished)
        return (
            packet(payload, .value(UInt16(KernelReference.number(first, at)))), .several(of: noted ?? size),
            UInt16(KernelReference.number(all, at))
        )
    }

    private static func list(
        _ name: String, _ list: (packet: [UInt8], count: PacketCount, checksum: UInt16), _ header: VirtioNetHeader
    ) -> Row {
        Row(name: name, packet: list.packet, header: header, count: list.count, checksum: header == plain ? nil : list.checksum)
    }

    static let pattern = Transport.pattern(2900)
    static let lists = [
        list("TCP", list(pattern, of: 1440), segment(1440)),
        list("TCP within the MTU", list(Transport.pattern(900), of: 450), segment(450)),
        list("TCP of odd lengths", list(Transport.pattern(901), of: 301), segment(301)),
        list(
            "TCP behind an extension header", list(pattern, of: 1432, extensions: Packets.extensionHeader(next: 6)),
            segment(1432, at: 48, headers: 68)),
        list("UDP", list(isTCP: false, pattern, of: 1400), segment(1400, isTCP: false, headers: 48)),
        list("UDP of odd lengths", list(isTCP: false, Transport.pattern(63), of: 21), segment(21, isTCP: false, headers: 48)),
        list("TCP that a peer left unfinished", list(pattern, of: 1440, .unfinished), segment(1440)),
        list(
            "UDP that a peer left unfinished", list(isTCP: false, pattern, of: 1400, .unfinished),
            segment(1400, isTCP: false, headers: 48)),
        // The note is another packet's, or the packet is broken: nothing here makes its checksum right.
        list("TCP of another size", list(pattern, of: 1440, noted: 1439), plain),
        list("UDP of another size", list(isTCP: false, pattern, of: 1400, noted: 1399), plain),
        list("TCP that is one", list(pattern, of: 2900, noted: 1440), plain),
        list("UDP that is one", list(isTCP: false, pattern, of: 2900, noted: 1440), plain),
        list("TCP with a wrong checksum", list(pattern, of: 1440, .value(0x1234)), plain),
        list("UDP without a checksum", list(isTCP: false, pattern, of: 1440, .value(0)), plain),
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
    func unfinishedOnesAreToBeFinished(row: Row) {
        var row = row
        row.count = .one
        check(row)
    }

    /// Their own length is no segment's, whether it fits into the MTU or not.
    @Test(arguments: merged + short, [nil, PacketCount.unknown])
    func whatNobodySawPassesEveryLink(row: Row, count: PacketCount?) {
        var row = row
        (row.count, row.isOfUnknownParts) = (count, true)
        check(row)
        row.mtu = 65000
        check(row)
    }

    /// A packet that is longer than the link takes was merged, whatever was seen of it.
    @Test(arguments: merged)
    func moreThanTheMTUIsNotOne(row: Row) {
        var row = row
        (row.count, row.isOfUnknownParts) = (.one, true)
        check(row)
    }

    @Test(arguments: several)
    func theSegmentSizeIsTheOneThatWasSeen(row: Row) { check(row) }

    @Test(arguments: lists)
    func whatWasMergedByListsIsMadeWhole(row: Row) { check(row) }

    @Test(arguments: leftAlone)
    func fragmentsAndRoutedPacketsAreLeftAlone(row: Row) { check(row) }

    private func check(_ row: Row) {
        let work = UnfinishedWork(row.packet.raw, standingFor: row.count, mtu: row.mtu)
        #expect(work?.virtio == row.header)
        #expect(work?.checksum == row.checksum)
        #expect(row.header == nil || work?.isOfUnknownParts == row.isOfUnknownParts)
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
            let answer = UnfinishedWork(vector.unfinished.raw, standingFor: .one, mtu: 1480)?.virtio
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
            let answer = UnfinishedWork(packet.raw, standingFor: .one, mtu: 1480)?.virtio
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
            let counts: [PacketCount?] = [nil, .one, .unknown, .several(of: Int.random(in: -1...200, using: &random))]
            let count = counts.randomElement(using: &random)!
            guard let header = UnfinishedWork(packet.raw, standingFor: count, mtu: 1280)?.virtio else { continue }
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
