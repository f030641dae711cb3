import TunnelCore

/// Packets written field by field, without the library's own headers.
enum Packets {
    /// An IPv6 packet. The payload length is the payload's own unless the test wants another.
    static func inner(
        _ source: String, _ destination: String, next: UInt8 = 59, payload: [UInt8] = Array("12345678".utf8), version: UInt8 = 6,
        trafficClass: UInt8 = 0, flowLabel: UInt32 = 0, payloadLength: Int? = nil, hopLimit: UInt8 = 64
    ) -> [UInt8] {
        let length = payloadLength ?? payload.count
        let first = UInt32(version) << 28 | UInt32(trafficClass) << 20 | flowLabel
        return bytes(first) + [UInt8(length >> 8), UInt8(length & 255), next, hopLimit] + bytes(v6(source))
            + bytes(v6(destination))
            + payload
    }

    /// A protocol-41 packet around `inner`, its total length and checksum right.
    static func outer(
        _ source: String, _ destination: String, _ inner: [UInt8], tos: UInt8 = 0, options: [UInt8] = []
    ) -> [UInt8] {
        ipv4(source, destination, protocolNumber: 41, payload: inner, tos: tos, options: options)
    }

    /// An IPv4 packet with DF. Its total length and checksum are right unless the test wants another length.
    static func ipv4(
        _ source: String, _ destination: String, protocolNumber: UInt8 = 253, payload: [UInt8] = Array("12345678".utf8),
        tos: UInt8 = 0, ttl: UInt8 = 64, identification: UInt16 = 1, fragment: UInt16 = 0x4000, options: [UInt8] = [],
        totalLength: Int? = nil
    ) -> [UInt8] {
        let total = totalLength ?? 20 + options.count + payload.count
        var header: [UInt8] =
            [UInt8(0x45 + options.count / 4), tos, UInt8(total >> 8), UInt8(total & 255)] + bytes(identification)
            + bytes(fragment) + [ttl, protocolNumber, 0, 0]
        header += bytes(v4(source).rawValue) + bytes(v4(destination).rawValue) + options
        let checksum = ~NaiveChecksum.sum(header)
        (header[10], header[11]) = (UInt8(checksum >> 8), UInt8(checksum & 255))
        return header + payload
    }

    /// 40 bytes of no-operation options: an IPv4 header of 15 words.
    static let fullOptions = [UInt8](repeating: 1, count: 40)

    /// A destination options, hop-by-hop or (with one segment left or none) routing header of 8 bytes.
    static func extensionHeader(next: UInt8) -> [UInt8] { [next, 0, 1, 4, 0, 0, 0, 0] }

    /// A fragment header; the offset in units of 8 bytes.
    static func fragmentHeader(next: UInt8, offset: UInt16 = 0, more: Bool) -> [UInt8] {
        [next, 0, UInt8(offset >> 5), UInt8(offset << 3 & 0xF8) | (more ? 1 : 0), 1, 2, 3, 4]
    }

    static func bytes(_ value: UInt32) -> [UInt8] { [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) } }
    static func bytes(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 255)] }
    static func bytes(_ address: IPv6Address) -> [UInt8] {
        [address.high, address.low].flatMap { half in (0..<8).map { UInt8(truncatingIfNeeded: half >> UInt64(56 - $0 * 8)) } }
    }
}
