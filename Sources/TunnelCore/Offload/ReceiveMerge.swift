// Merging of received packets into super-packets for the TUN, by the rules of the kernel's GRO (net/ipv4/tcp_offload.c
// `tcp_gro_receive`, net/ipv4/udp_offload.c `udp_gro_receive_segment`): what the TUN gets can be cut again into exactly the
// packets that came.

/// Collects the packets of one batch into frames. Several flows may be open at once; nothing stays open when the batch ends.
public struct ReceiveMerge: ~Copyable {
    /// One frame in the making.
    struct Aggregate: BitwiseCopyable {
        /// Packets in `packets`, linked by `next`.
        var first: Int32
        var last: Int32
        var count: Int32
        /// TCP or UDP while it may grow; else 0.
        var protocolNumber: UInt8
        /// Flags of the merged TCP header.
        var flags: TCPFlags
        var headerLength: UInt16
        /// Payload of the first packet, which all but the last have as well.
        var segmentSize: UInt16
        /// All payload so far.
        var payload: Int32
        /// The sequence number that continues it.
        var nextSequence: UInt32
    }

    /// One delivered packet: where it is, and what would stand before it alone.
    struct Packet: BitwiseCopyable {
        var slice: Slice
        var next: Int32
        var virtio: VirtioNetHeader
    }

    /// Datagrams in one super-packet (UDP_GRO_CNT_MAX of net/ipv4/udp_offload.c).
    static var mostDatagrams: Int32 { 64 }
    /// A length field of 16 bits holds no more.
    static var longestPayload: Int { 65535 }
    static var bucketCount: Int { 64 }
    static var none: Int32 { -1 }

    var packets: FixedList<Packet>
    var aggregates: FixedList<Aggregate>
    /// By flow hash: the open aggregate that was touched last.
    var buckets = InlineArray<64, Int32>(repeating: -1)
    /// Which protocols are merged.
    public var mergesTCP: Bool
    public var mergesUDP: Bool

    /// - Parameter capacity: packets in a batch.
    public init(capacity: Int, isOn: Bool) {
        packets = FixedList(capacity: capacity)
        aggregates = FixedList(capacity: capacity)
        mergesTCP = isOn
        mergesUDP = isOn
    }

    // MARK: Collecting

    /// Takes a packet that is to be delivered.
    /// - Parameters:
    ///   - slice: the IPv6 packet, exactly as long as its header says.
    ///   - work: what it needs if it goes alone.
    mutating func add(_ slice: Slice, _ work: UnfinishedWork, in memory: RawSpan) {
        let index = Int32(truncatingIfNeeded: packets.count)
        let virtio = work.virtio
        packets.append(Packet(slice: slice, next: Self.none, virtio: virtio))
        let bytes = unsafe memory.extracting(unchecked: slice.range)
        // A super-packet already, and what is neither TCP nor UDP right behind the IPv6 header, goes as it is.
        let transport = bytes.byte(at: 6)
        if virtio.segmentation != .none {
            closeFlow(of: bytes, transport)
            return appendAlone(index)
        }
        switch transport {
        case ProtocolNumber.tcp where mergesTCP: addTCP(index, bytes, work, memory)
        case ProtocolNumber.udp where mergesUDP: addUDP(index, bytes, work, memory)
        case ProtocolNumber.tcp, ProtocolNumber.udp, ProtocolNumber.icmpv6: appendAlone(index)
        default:
            // Part of a flow perhaps, but which one is not seen here: none may overtake it.
            closeAll()
            appendAlone(index)
        }
    }

    /// Takes an IPv4 packet, which goes as it is. No IPv6 packet is of its flow.
    mutating func addIPv4(_ slice: Slice, _ virtio: VirtioNetHeader) {
        let index = Int32(truncatingIfNeeded: packets.count)
        packets.append(Packet(slice: slice, next: Self.none, virtio: virtio))
        appendAlone(index)
    }

    mutating func addTCP(_ index: Int32, _ bytes: RawSpan, _ work: UnfinishedWork, _ memory: RawSpan) {
        guard let tcp = TCPView(unsafe bytes.extracting(unchecked: IPv6Header.length..<bytes.byteCount)) else {
            return appendAlone(index)
        }
        let payload = tcp.bytes.byteCount - tcp.headerLength
        let flags = tcp.flags
        let bucket = Self.bucket(of: bytes)
        // Only data with nothing special about it; an acknowledgement alone is worth no checksum.
        guard payload > 0, flags.isDisjoint(with: [.syn, .rst, .urg]), work.virtio.needsChecksum || Self.isChecksumRight(bytes)
        else {
            closeBucket(bucket)
            return appendAlone(index)
        }
        let open = unsafe buckets[unchecked: bucket]
        if open != Self.none {
            let aggregate = aggregates[Int(open)]
            if aggregate.protocolNumber == ProtocolNumber.tcp,
                tcp.sequenceNumber == aggregate.nextSequence,
                payload <= Int(aggregate.segmentSize),
                // Answers a mark on an earlier packet: it must not be heard later than it was said.
                !flags.contains(.cwr),
                Int(aggregate.headerLength) - IPv6Header.length + Int(aggregate.payload) + payload <= Self.longestPayload,
                Self.haveSameHeaders(head(of: aggregate, memory), bytes, isTCP: true)
            {
                append(index, to: Int(open), payload: payload)
                aggregates[Int(open)].flags.formUnion(flags.intersection([.fin, .psh]))
                let isEnd = payload < Int(aggregate.segmentSize) || !flags.isDisjoint(with: [.fin, .psh])
                if isEnd { closeBucket(bucket) }
                return
            }
            closeBucket(bucket)
        }
        // The first one's length is the segment size.
        if work.isOfUnknownParts { return appendAlone(index) }
        aggregates.append(
            Aggregate(
                first: index, last: index, count: 1, protocolNumber: ProtocolNumber.tcp, flags: flags,
                headerLength: UInt16(truncatingIfNeeded: IPv6Header.length + tcp.headerLength),
                segmentSize: UInt16(truncatingIfNeeded: payload), payload: Int32(truncatingIfNeeded: payload),
                nextSequence: tcp.sequenceNumber &+ UInt32(truncatingIfNeeded: payload)))
        if flags.isDisjoint(with: [.fin, .psh]) {
            unsafe buckets[unchecked: bucket] = Int32(truncatingIfNeeded: aggregates.count - 1)
        }
    }

    mutating func addUDP(_ index: Int32, _ bytes: RawSpan, _ work: UnfinishedWork, _ memory: RawSpan) {
        let length = bytes.byteCount - IPv6Header.length
        let payload = length - UDPHeader.length
        let bucket = Self.bucket(of: bytes)
        guard let udp = UDPView(unsafe bytes.extracting(unchecked: IPv6Header.length..<bytes.byteCount)), payload > 0,
            udp.length == length, udp.checksum != 0, work.virtio.needsChecksum || Self.isChecksumRight(bytes)
        else {
            closeBucket(bucket)
            return appendAlone(index)
        }
        let open = unsafe buckets[unchecked: bucket]
        if open != Self.none {
            let aggregate = aggregates[Int(open)]
            if aggregate.protocolNumber == ProtocolNumber.udp,
                payload <= Int(aggregate.segmentSize), aggregate.count < Self.mostDatagrams,
                UDPHeader.length + Int(aggregate.payload) + payload <= Self.longestPayload,
                Self.haveSameHeaders(head(of: aggregate, memory), bytes, isTCP: false)
            {
                append(index, to: Int(open), payload: payload)
                // Only the last datagram may be shorter.
                if payload < Int(aggregate.segmentSize) { closeBucket(bucket) }
                return
            }
            closeBucket(bucket)
        }
        if work.isOfUnknownParts { return appendAlone(index) }
        aggregates.append(
            Aggregate(
                first: index, last: index, count: 1, protocolNumber: ProtocolNumber.udp, flags: [],
                headerLength: UInt16(truncatingIfNeeded: IPv6Header.length + UDPHeader.length),
                segmentSize: UInt16(truncatingIfNeeded: payload), payload: Int32(truncatingIfNeeded: payload), nextSequence: 0))
        unsafe buckets[unchecked: bucket] = Int32(truncatingIfNeeded: aggregates.count - 1)
    }

    mutating func append(_ index: Int32, to open: Int, payload: Int) {
        packets[Int(aggregates[open].last)].next = index
        aggregates[open].last = index
        aggregates[open].count &+= 1
        aggregates[open].payload &+= Int32(truncatingIfNeeded: payload)
        aggregates[open].nextSequence &+= UInt32(truncatingIfNeeded: payload)
    }

    mutating func appendAlone(_ index: Int32) {
        aggregates.append(
            Aggregate(
                first: index, last: index, count: 1, protocolNumber: 0, flags: [], headerLength: 0, segmentSize: 0, payload: 0,
                nextSequence: 0))
    }

    mutating func closeBucket(_ bucket: Int) { unsafe buckets[unchecked: bucket] = Self.none }

    mutating func closeAll() {
        for bucket in 0..<Self.bucketCount { closeBucket(bucket) }
    }

    /// Ends the aggregate of the flow that a packet with these headers would be in.
    mutating func closeFlow(of bytes: RawSpan, _ transport: UInt8) {
        if transport == ProtocolNumber.tcp || transport == ProtocolNumber.udp, bytes.byteCount >= IPv6Header.length + 4 {
            closeBucket(Self.bucket(of: bytes))
        } else {
            closeAll()
        }
    }

    /// The packet whose headers an aggregate has.
    @_lifetime(copy memory)
    func head(of aggregate: Aggregate, _ memory: RawSpan) -> RawSpan {
        unsafe memory.extracting(unchecked: packets[Int(aggregate.first)].slice.range)
    }

    /// By addresses and ports; two flows in one bucket close each other, which costs only merging.
    static func bucket(of bytes: RawSpan) -> Int {
        let ports = bytes.byteCount >= IPv6Header.length + 4 ? UInt64(bytes.big32(at: IPv6Header.length)) : 0
        var hash = (bytes.big64(at: 8) ^ bytes.big64(at: 24)) &* 0x9E37_79B9_7F4A_7C15
        hash = (hash ^ bytes.big64(at: 16) ^ bytes.big64(at: 32) ^ ports) &* 0xBF58_476D_1CE4_E5B9
        return Int(truncatingIfNeeded: hash >> 58)
    }

    /// Whether two packets differ at most in what merging allows: lengths, checksums, TCP's sequence number, PSH, FIN and CWR.
    /// Both have a whole transport header right behind the IPv6 header.
    static func haveSameHeaders(_ a: RawSpan, _ b: RawSpan, isTCP: Bool) -> Bool {
        // Version, traffic class, flow label; next header and hop limit; both addresses; both ports.
        guard a.big32(at: 0) == b.big32(at: 0), a.big16(at: 6) == b.big16(at: 6), a.big32(at: 40) == b.big32(at: 40),
            a.big64(at: 8) == b.big64(at: 8), a.big64(at: 16) == b.big64(at: 16),
            a.big64(at: 24) == b.big64(at: 24), a.big64(at: 32) == b.big64(at: 32)
        else { return false }
        if !isTCP { return true }
        // Acknowledgment number; data offset, flags and window; every option.
        let variable = UInt32(TCPFlags([.cwr, .fin, .psh]).rawValue) << 16
        guard a.big32(at: 48) == b.big32(at: 48), (a.big32(at: 52) ^ b.big32(at: 52)) & ~variable == 0 else { return false }
        var offset = IPv6Header.length + TCPHeader.minimumLength
        let end = IPv6Header.length + Int(a.byte(at: 52) >> 4) * 4
        while offset < end {
            if a.big32(at: offset) != b.big32(at: offset) { return false }
            offset &+= 4
        }
        return true
    }

    /// Verifies the checksum of a transport header right behind the IPv6 header.
    static func isChecksumRight(_ bytes: RawSpan) -> Bool {
        var sum = InternetChecksum()
        sum.add(unsafe bytes.extracting(unchecked: 8..<bytes.byteCount))  // both addresses, and all behind the IPv6 header
        sum.add(UInt32(truncatingIfNeeded: bytes.byteCount - IPv6Header.length))
        sum.add(UInt32(bytes.byte(at: 6)))
        return sum.folded == 0xFFFF
    }

    // MARK: Emitting

    /// Ends the batch: writes the headers, puts all frames into `frames` in the order in which their first packets came, and is
    /// empty again.
    @_lifetime(memory: copy memory)
    mutating func emit(in memory: inout MutableRawSpan, into frames: inout FrameBatch, counters: inout Counters) {
        for index in 0..<aggregates.count {
            let aggregate = aggregates[index]
            if aggregate.count == 1 {
                let packet = packets[Int(aggregate.first)]
                packet.virtio.emit(into: &memory, at: Int(packet.slice.offset) - VirtioNetHeader.length)
                let wire = packet.virtio.packets(in: Int(packet.slice.length))
                frames.append(
                    packet.slice.withVirtioHeader, outer: .none, innerLength: wire.length, packetCount: wire.count)
            } else {
                emit(aggregate, in: &memory, into: &frames)
                counters.mergedPackets &+= 1
            }
        }
        packets.removeAll()
        aggregates.removeAll()
        closeAll()
    }

    @_lifetime(memory: copy memory)
    func emit(_ aggregate: Aggregate, in memory: inout MutableRawSpan, into frames: inout FrameBatch) {
        let head = packets[Int(aggregate.first)].slice
        let headerLength = Int(aggregate.headerLength)
        let isTCP = aggregate.protocolNumber == ProtocolNumber.tcp
        let transport = Int(head.offset) + IPv6Header.length
        let transportLength = headerLength - IPv6Header.length + Int(aggregate.payload)

        var virtio = VirtioNetHeader()
        virtio.needsChecksum = true
        virtio.segmentation = isTCP ? .tcp6 : .udp
        virtio.hasECN = isTCP && aggregate.flags.contains(.cwr)
        virtio.headerLength = aggregate.headerLength
        virtio.segmentSize = aggregate.segmentSize
        virtio.checksumStart = UInt16(IPv6Header.length)
        virtio.checksumOffset = UInt16(isTCP ? TCPHeader.checksumOffset : UDPHeader.checksumOffset)
        virtio.emit(into: &memory, at: Int(head.offset) - VirtioNetHeader.length)
        memory.put(big: UInt16(truncatingIfNeeded: transportLength), at: Int(head.offset) + 4)
        if isTCP {
            memory.put(aggregate.flags.rawValue, at: transport + 13)
        } else {
            memory.put(big: UInt16(truncatingIfNeeded: transportLength), at: transport + 4)
        }
        var pseudo = InternetChecksum()
        pseudo.add(memory.bytes.extracting(Int(head.offset) + 8..<Int(head.offset) + IPv6Header.length))
        pseudo.add(UInt32(truncatingIfNeeded: transportLength))
        pseudo.add(UInt32(aggregate.protocolNumber))
        memory.put(big: pseudo.folded, at: transport + Int(virtio.checksumOffset))

        let firstSlice = frames.slices.count
        frames.slices.append(head.withVirtioHeader)
        var innerLength = Int(head.length)
        var next = packets[Int(aggregate.first)].next
        while next != Self.none {
            let packet = packets[Int(next)]
            frames.slices.append(
                Slice(offset: Int(packet.slice.offset) + headerLength, length: Int(packet.slice.length) - headerLength))
            innerLength += Int(packet.slice.length)
            next = packet.next
        }
        frames.frames.append(
            Frame(
                outer: .none, firstSlice: firstSlice, sliceCount: frames.slices.count - firstSlice,
                packetCount: Int(aggregate.count), innerLength: innerLength))
    }

    // MARK: Taking apart again

    /// Puts the packets of a merged frame into the same batch one by one, for a TUN that refused the frame. Each packet but the
    /// first is still whole in its own place.
    /// - Returns: whether they are TCP; else they are UDP.
    @_lifetime(memory: copy memory)
    public static func unmerge(_ frame: Frame, in memory: inout MutableRawSpan, into frames: inout FrameBatch) -> Bool {
        let head = frames.slices[Int(frame.firstSlice)].withoutVirtioHeader
        let isTCP = memory.bytes.extracting(head.range).byte(at: 6) == ProtocolNumber.tcp
        let transport = Int(head.offset) + IPv6Header.length
        let headerLength =
            IPv6Header.length + (isTCP ? Int(memory.bytes.byte(at: transport + 12) >> 4) * 4 : UDPHeader.length)
        // The head had no PSH or FIN, or nothing would have been added to it. Its checksum is left to the TUN.
        let transportLength = Int(head.length) - IPv6Header.length
        memory.put(big: UInt16(truncatingIfNeeded: transportLength), at: Int(head.offset) + 4)
        if isTCP {
            var flags = TCPFlags(rawValue: memory.bytes.byte(at: transport + 13))
            flags.subtract([.fin, .psh])
            memory.put(flags.rawValue, at: transport + 13)
        } else {
            memory.put(big: UInt16(truncatingIfNeeded: transportLength), at: transport + 4)
        }
        var virtio = VirtioNetHeader()
        virtio.needsChecksum = true
        virtio.checksumStart = UInt16(IPv6Header.length)
        virtio.checksumOffset = UInt16(isTCP ? TCPHeader.checksumOffset : UDPHeader.checksumOffset)
        var pseudo = InternetChecksum()
        pseudo.add(memory.bytes.extracting(Int(head.offset) + 8..<transport))
        pseudo.add(UInt32(truncatingIfNeeded: transportLength))
        pseudo.add(UInt32(memory.bytes.byte(at: Int(head.offset) + 6)))
        memory.put(big: pseudo.folded, at: transport + Int(virtio.checksumOffset))
        virtio.emit(into: &memory, at: Int(head.offset) - VirtioNetHeader.length)
        frames.append(head.withVirtioHeader, outer: .none, innerLength: Int(head.length))

        for index in Int(frame.firstSlice) + 1..<Int(frame.firstSlice + frame.sliceCount) {
            let payload = frames.slices[index]
            let packet = Slice(offset: Int(payload.offset) - headerLength, length: Int(payload.length) + headerLength)
            let work = UnfinishedWork(memory.bytes.extracting(packet.range), standingFor: .one, mtu: .max)
            (work?.virtio ?? VirtioNetHeader()).emit(into: &memory, at: Int(packet.offset) - VirtioNetHeader.length)
            frames.append(packet.withVirtioHeader, outer: .none, innerLength: Int(packet.length))
        }
        return isTCP
    }
}

extension Slice {
    /// A packet with the virtio-net header in front of it.
    var withVirtioHeader: Slice {
        Slice(offset: Int(offset) - VirtioNetHeader.length, length: Int(length) + VirtioNetHeader.length)
    }

    var withoutVirtioHeader: Slice {
        Slice(offset: Int(offset) + VirtioNetHeader.length, length: Int(length) - VirtioNetHeader.length)
    }
}
