import CountingAllocator
import TunnelCore

// What TunnelCore costs a packet, the kernel left out: nanoseconds and allocations. Each figure is the median of many runs of
// about a millisecond, with the least and the most of the middle nine tenths beside it.

@main
struct BenchMicro {
    static func main() {
        print("                                        ns    (least to most)   allocations")
        checksum()
        perPacket()
        split()
        merge()
    }

    // MARK: Measuring

    /// Times `body`, which handles `items` things a call.
    static func measure(_ name: String, items: Int, _ body: () -> Void) {
        let clock = ContinuousClock()
        func nanoseconds(_ duration: Duration) -> Double {
            let (seconds, attoseconds) = duration.components
            return Double(seconds) * 1e9 + Double(attoseconds) / 1e9
        }
        body()
        let once = max(nanoseconds(clock.measure(body)), 1)
        let calls = max(1, Int(1e6 / once))
        var runs: [Double] = []
        let runCount = 400
        runs.reserveCapacity(runCount)
        let allocated = allocation_count()
        for _ in 0..<runCount {
            runs.append(nanoseconds(clock.measure { for _ in 0..<calls { body() } }) / Double(calls * items))
        }
        let allocations = Double(allocation_count() - allocated) / Double(runCount * calls * items)
        runs.sort()
        print(
            pad(name, 36), pad(number(runs[200]), 9, right: true),
            pad("  (\(number(runs[20])) to \(number(runs[380])))", 22), number(allocations))
    }

    static func number(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }

    static func pad(_ text: String, _ width: Int, right: Bool = false) -> String {
        let space = String(repeating: " ", count: max(0, width - text.count))
        return right ? space + text : text + space
    }

    /// Keeps a result from being optimised away.
    @inline(never)
    static func use<Value>(_ value: Value) {}

    // MARK: Packets

    static let local = IPv4Address(10, 0, 0, 1)
    static let peer = IPv4Address(10, 0, 0, 2)
    static let domain = try! Domain(
        prefix: IPv6Prefix(parsing: "fd00::/32"), relayPrefix: IPv4Prefix(masking: .any, length: 0))

    static var policy: TunnelPolicy {
        TunnelPolicy(local: local, peers: .domain(try! DomainPeers(domain: domain, local: local)))
    }

    static func address(of host: IPv4Address) -> IPv6Address {
        IPv6Address(high: domain.delegatedPrefix(of: host)!.address.high, low: 1)
    }

    /// An IPv6 packet with a TCP segment of the given length in all.
    static func tcp(length: Int, from: IPv4Address, to: IPv4Address, sequence: UInt32 = 1) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: length)
        for index in 60..<length { bytes[index] = UInt8(truncatingIfNeeded: index &* 31) }
        let (source, destination) = (address(of: from), address(of: to))
        var header = IPv6Header(
            payloadLength: UInt16(length - 40), nextHeader: ProtocolNumber.tcp, source: source, destination: destination)
        header.hopLimit = 64
        var segment = TCPHeader(sourcePort: 40000, destinationPort: 5201)
        segment.sequenceNumber = sequence
        segment.flags = .ack
        segment.window = 500
        func write(_ segment: TCPHeader, _ bytes: inout [UInt8]) {
            unsafe bytes.withUnsafeMutableBytes { buffer in
                var span = unsafe MutableRawSpan(_unsafeBytes: buffer)
                header.emit(into: &span)
                var rest = unsafe MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: buffer[40...]))
                segment.emit(into: &rest)
            }
        }
        write(segment, &bytes)
        var sum = InternetChecksum()
        sum.addPseudoHeader(source: source, destination: destination, length: length - 40, protocolNumber: 6)
        unsafe sum.add(bytes.span.bytes.extracting(40..<length))
        segment.checksum = sum.checksum
        write(segment, &bytes)
        return bytes
    }

    static func encapsulated(_ inner: [UInt8]) -> [UInt8] {
        var outer = [UInt8](repeating: 0, count: 20)
        unsafe outer.withUnsafeMutableBytes { buffer in
            var span = unsafe MutableRawSpan(_unsafeBytes: buffer)
            IPv4Header(totalLength: UInt16(20 + inner.count), source: peer, destination: local).emit(into: &span)
        }
        return outer + inner
    }

    // MARK: Measures

    static func checksum() {
        for length in [20, 64, 512, 1440, 9000, 65515] {
            let bytes = [UInt8](repeating: 0x5A, count: length)
            measure("checksum of \(length) bytes", items: 1) {
                var sum = InternetChecksum()
                unsafe sum.add(bytes.span.bytes)
                use(sum.folded)
            }
        }
    }

    static func perPacket() {
        let policy = policy
        guard case .domain(let peers) = policy.peers else { return }
        for length in [100, 1480] {
            let up = tcp(length: length, from: local, to: peer)
            let down = encapsulated(tcp(length: length, from: peer, to: local))
            measure("parse, \(length) bytes", items: 1) {
                if let view = unsafe IPv6View(up.span.bytes) { use(view.upperLayer) }
            }
            let destination = address(of: peer)
            measure("owner of an address", items: 1) { use(peers.plan.owner(of: destination)) }
            measure("encapsulate, \(length) bytes", items: 1) { unsafe use(policy.encapsulate(up.span.bytes)) }
            measure("decapsulate, \(length) bytes", items: 1) { unsafe use(policy.decapsulate(down.span.bytes)) }
        }
    }

    /// Segments of a super-packet of 64 KiB, their checksums included.
    static func split() {
        let policy = policy
        for segment in [1220, 1440] {
            let count = 65000 / segment
            let inner = tcp(length: 60 + count * segment, from: local, to: peer)
            var virtio = VirtioNetHeader()
            virtio.needsChecksum = true
            virtio.segmentation = .tcp6
            virtio.segmentSize = UInt16(segment)
            virtio.checksumStart = 40
            virtio.checksumOffset = 16
            var memory = [UInt8](repeating: 0, count: 10) + inner + [UInt8](repeating: 0, count: 1 << 16)
            unsafe memory.withUnsafeMutableBytes { buffer in
                var span = unsafe MutableRawSpan(_unsafeBytes: buffer)
                virtio.emit(into: &span)
            }
            var batch = FixedList<Slice>(capacity: 1)
            batch.append(Slice(offset: 0, length: 10 + inner.count))
            var frames = FrameBatch(
                frames: 64, slices: 128, packets: 1, scratch: 10 + inner.count..<memory.count)
            var counters = Counters()
            measure("split, a segment of \(segment) bytes", items: count) {
                frames.removeAll()
                var next = 0
                unsafe memory.withUnsafeMutableBytes { buffer in
                    var span = unsafe MutableRawSpan(_unsafeBytes: buffer)
                    policy.encapsulate(batch, from: &next, in: &span, into: &frames, counters: &counters)
                }
            }
            precondition(frames.frames.count == count)
        }
    }

    /// Packets of one flow in a batch, decapsulated, verified and merged; and of 16 flows in turn.
    static func merge() {
        let policy = policy
        for (flows, count) in [(1, 45), (16, 256)] {
            let slot = 2048
            var template: [UInt8] = []
            var batch = FixedList<Slice>(capacity: count)
            for index in 0..<count {
                let sequence = UInt32(1 + index / flows * 1440)
                var packet = tcp(length: 1500, from: peer, to: local, sequence: sequence)
                // Another source port, and the checksum that goes with it.
                let port = UInt16(40000 + index % flows)
                packet[40] = UInt8(port >> 8)
                packet[41] = UInt8(port & 255)
                let field = UInt16(packet[56]) << 8 | UInt16(packet[57])
                let updated = InternetChecksum.updated(field, replacing: 40000, with: port)
                packet[56] = UInt8(updated >> 8)
                packet[57] = UInt8(updated & 255)
                let bytes = encapsulated(packet)
                batch.append(Slice(offset: template.count, length: bytes.count))
                template += bytes + [UInt8](repeating: 0, count: slot - bytes.count)
            }
            var memory = template
            var frames = FrameBatch(frames: count, slices: count, packets: count, scratch: 0..<0)
            var counters = Counters()
            var merge = ReceiveMerge(capacity: count, isOn: true)
            measure("merge, \(flows) flow\(flows == 1 ? "" : "s"), a segment of 1440", items: count) {
                frames.removeAll()
                unsafe memory.withUnsafeMutableBytes { buffer in
                    // The headers that the last call wrote over.
                    for index in 0..<count {
                        unsafe template.withUnsafeBytes {
                            unsafe (buffer.baseAddress! + index * slot).copyMemory(from: $0.baseAddress! + index * slot, byteCount: 80)
                        }
                    }
                    var span = unsafe MutableRawSpan(_unsafeBytes: buffer)
                    policy.decapsulate(batch, in: &span, merge: &merge, into: &frames, counters: &counters)
                }
            }
            precondition(frames.frames.count == flows, "\(frames.frames.count) frames of \(flows) flows")
        }
    }
}
