import CLiburing
import CLinux
import Glibc
import Testing

@testable import RingIO

/// The kernel runs the filters here, on datagrams between local sockets: they are the same programs as on a raw socket, where
/// a packet, too, begins with its IPv4 header.
@Suite struct SocketFilterTests {
    /// One end takes through a filter what the other end sends.
    struct Pair {
        let sender: Int32
        let receiver: Int32

        init(_ filter: SocketFilter) throws {
            var ends: [Int32] = [0, 0]
            try #require(unsafe socketpair(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0, &ends) == 0)
            (sender, receiver) = (ends[0], ends[1])
            try filter.attach(to: receiver)
        }

        func close() {
            Glibc.close(sender)
            Glibc.close(receiver)
        }

        /// How many of a packet's bytes come through.
        func takes(_ packet: [UInt8]) -> Int? {
            // A filter's refusal is EPERM here.
            _ = unsafe send(sender, packet, packet.count, Int32(MSG_DONTWAIT))
            var buffer = [UInt8](repeating: 0, count: 1 << 17)
            let length = unsafe recv(receiver, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            return length < 0 ? nil : length
        }
    }

    /// An IPv4 header of `headerLength` bytes and an IPv6 packet with random addresses.
    static func packet(headerLength: Int, nextHeader: UInt8, innerLength: Int, _ random: inout some RandomNumberGenerator)
        -> [UInt8]
    {
        var packet = [UInt8](repeating: 0, count: headerLength + max(innerLength, 8))
        packet[0] = 0x40 | UInt8(headerLength / 4)
        for index in headerLength..<packet.count { packet[index] = .random(in: 0...255, using: &random) }
        packet[headerLength] = 0x60
        packet[headerLength + 6] = nextHeader
        return Array(packet.prefix(headerLength + innerLength))
    }

    @Test(arguments: [1, 2, 3, 4, 7, 64])
    func exactlyOneWorkerTakesAPacket(workers: Int) throws {
        var random = SeededGenerator(seed: 41)
        let pairs = try (0..<workers).map { try Pair(.flows(of: $0, among: workers)) }
        defer { for pair in pairs { pair.close() } }
        var taken = [Int](repeating: 0, count: workers)
        let lengths = Array(0...60) + [1280, 1480, 30000]
        for length in lengths {
            for headerLength in [20, 20, 20, 24, 60] {
                for nextHeader: UInt8 in [6, 17, 58, 44, 0, 59] {
                    let packet = Self.packet(headerLength: headerLength, nextHeader: nextHeader, innerLength: length, &random)
                    let takers = pairs.indices.filter { pairs[$0].takes(packet) == packet.count }
                    #expect(takers.count == 1, "length \(length), header \(headerLength), next header \(nextHeader)")
                    if length < 40 || headerLength > 20 {
                        #expect(takers == [0], "worker 0 takes what is too short, or behind options")
                    }
                    for taker in takers { taken[taker] += 1 }
                }
            }
        }
        #expect(taken.allSatisfy { $0 > 0 }, "\(taken)")
    }

    @Test func aFlowStaysOnOneWorker() throws {
        var random = SeededGenerator(seed: 6)
        let pairs = try (0..<4).map { try Pair(.flows(of: $0, among: 4)) }
        defer { for pair in pairs { pair.close() } }
        var used: Set<Int> = []
        for _ in 0..<64 {
            let first = Self.packet(headerLength: 20, nextHeader: 6, innerLength: 100, &random)
            var second = Self.packet(headerLength: 20, nextHeader: 6, innerLength: 1400, &random)
            // The same addresses and ports; another length, hop limit, flow label, sequence number and payload.
            second.replaceSubrange(28..<64, with: first[28..<64])
            let takers = [first, second].map { packet in pairs.firstIndex { $0.takes(packet) != nil } }
            #expect(takers[0] == takers[1])
            if let taker = takers[0] { used.insert(taker) }
        }
        #expect(used == [0, 1, 2, 3])
    }

    /// The same with an inner IPv4 header in front of the ports.
    static func packet4(
        headerLength: Int, protocolNumber: UInt8, options: Int = 0, fragment: UInt16 = 0x4000, innerLength: Int,
        _ random: inout some RandomNumberGenerator
    ) -> [UInt8] {
        var packet = packet(headerLength: headerLength, nextHeader: 0, innerLength: max(innerLength, 20), &random)
        packet[headerLength] = 0x45 + UInt8(options / 4)
        (packet[headerLength + 6], packet[headerLength + 7]) = (UInt8(fragment >> 8), UInt8(fragment & 255))
        packet[headerLength + 9] = protocolNumber
        return Array(packet.prefix(headerLength + innerLength))
    }

    @Test(arguments: [1, 2, 3, 4, 7, 64])
    func exactlyOneWorkerTakesAnIPv4Packet(workers: Int) throws {
        var random = SeededGenerator(seed: 42)
        let pairs = try (0..<workers).map { try Pair(.flows(of: $0, among: workers, .ipv4)) }
        defer { for pair in pairs { pair.close() } }
        var taken = [Int](repeating: 0, count: workers)
        for length in Array(0...60) + [1280, 1480, 30000] {
            for headerLength in [20, 20, 20, 24, 60] {
                for (protocolNumber, options, fragment) in [
                    (6, 0, 0x4000), (17, 0, 0), (1, 0, 0), (6, 8, 0), (17, 0, 0x2000), (6, 0, 7),
                ] {
                    let packet = Self.packet4(
                        headerLength: headerLength, protocolNumber: UInt8(protocolNumber), options: options,
                        fragment: UInt16(fragment), innerLength: length, &random)
                    let takers = pairs.indices.filter { pairs[$0].takes(packet) == packet.count }
                    #expect(
                        takers.count == 1, "length \(length), header \(headerLength), \(protocolNumber), \(options), \(fragment)")
                    if length < 20 || headerLength > 20 {
                        #expect(takers == [0], "worker 0 takes what is too short, or behind options")
                    }
                    for taker in takers { taken[taker] += 1 }
                }
            }
        }
        #expect(taken.allSatisfy { $0 > 0 }, "\(taken)")
    }

    /// Ports count only where the transport header follows at once; fragments of one datagram stay together.
    @Test(arguments: [
        (UInt8(6), 0, UInt16(0x4000), true), (17, 0, 0, true), (1, 0, 0, false), (17, 0, 0x2000, false), (17, 0, 0x00B9, false),
        (6, 4, 0, false),
    ])
    func portsTellFlowsOfIPv4Apart(protocolNumber: UInt8, options: Int, fragment: UInt16, doCount: Bool) throws {
        var random = SeededGenerator(seed: 7)
        let pairs = try (0..<4).map { try Pair(.flows(of: $0, among: 4, .ipv4)) }
        defer { for pair in pairs { pair.close() } }
        let first = Self.packet4(
            headerLength: 20, protocolNumber: protocolNumber, options: options, fragment: fragment, innerLength: 100, &random)
        var takers: Set<Int?> = []
        for port in 0..<64 as Range<UInt8> {
            var packet = first
            packet[41] = port
            takers.insert(pairs.firstIndex { $0.takes(packet) != nil })
        }
        #expect(takers.count == (doCount ? 4 : 1) && !takers.contains(nil))
    }

    @Test func nothingIsTakenByNothing() throws {
        let pair = try Pair(.nothing)
        defer { pair.close() }
        #expect(pair.takes([UInt8](repeating: 0x45, count: 100)) == nil)
    }
}

/// The same numbers in every run (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}
