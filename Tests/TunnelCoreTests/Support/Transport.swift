import TunnelCore

/// A TCP segment or UDP datagram from the peer to us, field by field.
struct Transport {
    enum Field { case finished, unfinished, wrong, value(UInt16) }

    var isTCP = true
    var source = "2001:db8:64c8:200::2"
    var destination = "2001:db8:6464:100::1"
    var sourcePort: UInt16 = 443
    var destinationPort: UInt16 = 40000
    var trafficClass: UInt8 = 0
    var flowLabel: UInt32 = 0
    var hopLimit: UInt8 = 64
    var sequence: UInt32 = 1000
    var acknowledgment: UInt32 = 77
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 0x10, URG 0x20, ECE 0x40, CWR 0x80
    var flags: UInt8 = 0x10
    var reserved: UInt8 = 0
    var window: UInt16 = 500
    var urgent: UInt16 = 0
    var options: [UInt8] = []
    /// The value of UDP's length field, if it is to lie.
    var length: Int?
    var payload: [UInt8] = []
    var checksum = Field.finished

    /// The IPv6 packet.
    var bytes: [UInt8] {
        let ports = Packets.bytes(sourcePort) + Packets.bytes(destinationPort)
        let header: [UInt8]
        if isTCP {
            header =
                ports + Packets.bytes(sequence) + Packets.bytes(acknowledgment)
                + [UInt8((20 + options.count) / 4) << 4 | reserved, flags] + Packets.bytes(window) + [0, 0]
                + Packets.bytes(urgent)
                + options
        } else {
            header = ports + Packets.bytes(UInt16(length ?? 8 + payload.count)) + [0, 0]
        }
        var packet = Packets.inner(
            source, destination, next: isTCP ? 6 : 17, payload: header + payload, trafficClass: trafficClass,
            flowLabel: flowLabel,
            hopLimit: hopLimit)
        let field = isTCP ? 56 : 46
        let whole = NaiveChecksum.pseudoHeader(
            addresses: packet[8..<40], length: packet.count - 40, protocolNumber: packet[6])
        var right = ~NaiveChecksum.sum(whole + packet[40...])
        if !isTCP && right == 0 { right = 0xFFFF }
        let value: UInt16 =
            switch checksum {
            case .finished: right
            case .unfinished: NaiveChecksum.sum(whole)
            case .wrong: right ^ 0x0101
            case .value(let value): value
            }
        packet.replaceSubrange(field..<field + 2, with: Packets.bytes(value))
        return packet
    }

    func with(_ change: (inout Transport) -> Void) -> Transport {
        var copy = self
        change(&copy)
        return copy
    }

    /// Bytes that tell where they are from.
    static func pattern(_ count: Int, from start: Int = 0) -> [UInt8] {
        (start..<start + count).map { UInt8(truncatingIfNeeded: $0 ^ $0 >> 8) }
    }
}
