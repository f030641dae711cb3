import TunnelCore

/// Packets of a point-to-point tunnel between 192.0.2.1 (we) and 198.51.100.7, each with a port for its flow.
enum WorkerPackets {
    static let policy = TunnelPolicy(local: IPv4Address("192.0.2.1")!, peers: .remote(IPv4Address("198.51.100.7")!))

    static func big(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }
    static func native(_ value: Int) -> [UInt8] {
        let bytes = big(value)
        return UInt16(littleEndian: 1) == 1 ? bytes.reversed() : bytes
    }
    static func number(_ bytes: [UInt8], _ offset: Int) -> Int { Int(bytes[offset]) * 256 + Int(bytes[offset + 1]) }
    static func native(_ bytes: [UInt8], _ offset: Int) -> Int {
        UInt16(littleEndian: 1) == 1 ? Int(bytes[offset + 1]) * 256 + Int(bytes[offset]) : number(bytes, offset)
    }

    static func sum(_ bytes: [UInt8]) -> Int {
        var sum = 0
        for (index, byte) in bytes.enumerated() { sum += index % 2 == 0 ? Int(byte) << 8 : Int(byte) }
        while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
        return sum
    }

    /// A packet whose checksum field holds the pseudo header's sum.
    static func packet(isTCP: Bool, port: Int, sequence: Int = 0, flags: UInt8 = 0x10, payload: [UInt8]) -> [UInt8] {
        var transport = big(port) + [0, 80]
        if isTCP {
            transport += big(sequence >> 16) + big(sequence) + [0, 0, 0, 1, 0x50, flags, 2, 0, 0, 0, 0, 0]
        } else {
            transport += big(8 + payload.count) + [0, 0]
        }
        transport += payload
        let next: UInt8 = isTCP ? 6 : 17
        let addresses: [UInt8] = (0..<32).map { $0 % 16 == 0 ? 0x20 : UInt8($0) }
        let field = isTCP ? 16 : 6
        transport.replaceSubrange(field..<field + 2, with: big(sum(addresses + big(transport.count) + [0, next])))
        return [0x60, 0, 0, 0] + big(transport.count) + [next, 64] + addresses + transport
    }

    /// As the TUN hands it over: a super-packet, or one whose checksum is missing.
    static func read(isTCP: Bool, port: Int, segmentSize: Int?, payload: [UInt8]) -> [UInt8] {
        let type: UInt8 = segmentSize == nil ? 0 : isTCP ? 4 : 5
        return [1, type] + native(0) + native(segmentSize ?? 0) + native(40) + native(isTCP ? 16 : 6)
            + packet(isTCP: isTCP, port: port, payload: payload)
    }

    /// As the underlay hands it over.
    static func arrival(_ inner: [UInt8]) -> [UInt8] {
        [0x45, 0] + big(20 + inner.count) + [0, 0, 0x40, 0, 64, 41, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1] + inner
    }

    static func payload(of packet: [UInt8]) -> [UInt8] { Array(packet[(packet[6] == 6 ? 60 : 48)...]) }
    static func port(of packet: [UInt8]) -> Int { number(packet, 40) }

    /// The payloads of the packets in a frame for the TUN, and their flow.
    static func payloads(of frame: [UInt8]) -> (port: Int, payloads: [[UInt8]]) {
        let packet = Array(frame[10...])
        let payload = payload(of: packet)
        let size = frame[1] == 0 ? payload.count : native(frame, 4)
        return (
            port(of: packet),
            stride(from: 0, to: payload.count, by: max(size, 1)).map { Array(payload[$0..<min($0 + size, payload.count)]) }
        )
    }

    static func isMerged(_ frame: [UInt8]) -> Bool { frame[1] != 0 }
}
