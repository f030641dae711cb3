/// The Internet checksum, byte by byte: even bytes count 256 times as much as odd ones, carries go round.
enum NaiveChecksum {
    /// The folded sum, not complemented.
    static func sum(_ bytes: some Sequence<UInt8>) -> UInt16 {
        var sum: UInt32 = 0
        var isHigh = true
        for byte in bytes {
            sum += isHigh ? UInt32(byte) * 256 : UInt32(byte)
            if sum > 0xFFFF { sum = sum - 0x10000 + 1 }
            isHigh.toggle()
        }
        return UInt16(sum)
    }

    /// RFC 8200 section 8.1: addresses as they stand in a packet, 32-bit length, three zeros, next header.
    static func pseudoHeader(addresses: some Sequence<UInt8>, length: Int, protocolNumber: UInt8) -> [UInt8] {
        Array(addresses)
            + [
                UInt8(length >> 24), UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255), 0, 0, 0,
                protocolNumber,
            ]
    }
}
