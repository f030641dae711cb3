// The addresses of an ISATAP link (RFC 5214 section 6.1): a /64, then the interface identifier
//
//     | 0000 00u0 0000 0000 | 0101 1110 1111 1110 | IPv4 address |
//     +---------------------+---------------------+--------------+
//     |     0 or 0200       |        5efe         |   a.b.c.d    |

extension IPv6Prefix {
    /// fe80::/64
    public static var linkLocal: IPv6Prefix { IPv6Prefix(masking: IPv6Address(high: 0xFE80 << 48, low: 0), length: 64) }

    /// The /96s of a /64 whose addresses are ISATAP addresses: without and with the u bit, which nobody checks.
    var isatap: [IPv6Prefix] {
        [0x0000_5EFE, 0x0200_5EFE].map { IPv6Prefix(masking: IPv6Address(high: address.high, low: $0 << 32), length: 96) }
    }
}

extension IPv6Address {
    /// The ISATAP address of a host in a /64, the u bit set where the IPv4 address is unique in the world, as the kernel has it
    /// (net/ipv6/addrconf.c `__ipv6_isatap_ifid`).
    public static func isatap(_ host: IPv4Address, in prefix: IPv6Prefix) -> IPv6Address {
        let identifier: UInt64 = host.isUnique ? 0x0200_5EFE : 0x0000_5EFE
        return IPv6Address(high: prefix.address.high, low: identifier << 32 | UInt64(host.rawValue))
    }
}

extension IPv4Address {
    /// The kernel's idea of it: not 0/8, 127/8, private (RFC 1918), link-local, 192.0.2/24, 198.18/15, 192.88.99/24, multicast or
    /// broadcast.
    fileprivate var isUnique: Bool {
        let shared: [(UInt32, Int)] = [
            (0, 8), (0x0A00_0000, 8), (0x7F00_0000, 8), (0xA9FE_0000, 16), (0xAC10_0000, 12), (0xC000_0200, 24),
            (0xC058_6300, 24), (0xC0A8_0000, 16), (0xC612_0000, 15), (0xE000_0000, 4), (.max, 32),
        ]
        return !shared.contains { IPv4Prefix(masking: IPv4Address(rawValue: $0.0), length: $0.1).contains(self) }
    }
}
