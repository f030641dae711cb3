/// Why a prefix and a relay prefix make no domain. The cases are those in which sit answers EINVAL
/// (net/ipv6/sit.c `ipip6_tunnel_update_6rd`).
public enum DomainError: Error, Equatable, Sendable {
    /// n + (32 - m) is more than 64: a delegated prefix longer than /64 leaves no room for hosts.
    case delegatedPrefixTooLong(length: Int)
}

extension DomainError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .delegatedPrefixTooLong(let length):
            "hosts would get a /\(length), longer than /64: shorten the IPv6 prefix or lengthen the relay prefix"
        }
    }
}

/// A 6rd domain (RFC 5969 section 4; 6to4 is `2002::/16` with the relay prefix `0.0.0.0/0`): every IPv4 host in R/m owns the
/// delegated prefix made of the n bits of P and the last 32 - m bits of its IPv4 address.
///
///     |     n bits    |    32 - m bits    |  128 - n - 32 + m bits     |
///     +---------------+-------------------+----------------------------+
///     |   prefix P    |   IPv4 address    |  subnet, interface         |
///     +---------------+-------------------+----------------------------+
///
/// n + 32 - m is at most 64, so all of it lies in the first half of the address and one shift finds the IPv4 bits.
public struct Domain: Hashable, Sendable {
    /// P, n
    public let prefixLength: Int
    @usableFromInline let prefixHigh: UInt64
    @usableFromInline let prefixMask: UInt64
    /// R, m
    public let relayPrefixLength: Int
    @usableFromInline let relay: UInt32
    @usableFromInline let suffixMask: UInt32
    /// How far left of the half's last bit the IPv4 bits end: 64 - n - (32 - m).
    @usableFromInline let shift: UInt64

    /// - Parameters:
    ///   - prefix: P/n
    ///   - relayPrefix: R/m: the IPv4 network whose hosts are in the domain; its bits are left out of the addresses.
    public init(prefix: IPv6Prefix, relayPrefix: IPv4Prefix) throws(DomainError) {
        let delegated = prefix.length + 32 - relayPrefix.length
        if delegated > 64 { throw .delegatedPrefixTooLong(length: delegated) }
        prefixLength = prefix.length
        prefixHigh = prefix.address.high
        prefixMask = IPv6Prefix.mask(prefix.length).high
        relayPrefixLength = relayPrefix.length
        relay = relayPrefix.address.rawValue
        suffixMask = ~IPv4Prefix.mask(relayPrefix.length)
        shift = UInt64(64 - delegated)
    }

    /// 2002::/16 (RFC 3056): what sit, too, uses unless told otherwise.
    public static var sixToFour: Domain {
        // n + 32 - m = 48: cannot throw
        try! Domain(
            prefix: IPv6Prefix(masking: IPv6Address(high: 0x2002 << 48, low: 0), length: 16),
            relayPrefix: IPv4Prefix(masking: .any, length: 0))
    }

    public var prefix: IPv6Prefix { IPv6Prefix(masking: IPv6Address(high: prefixHigh, low: 0), length: prefixLength) }
    public var relayPrefix: IPv4Prefix { IPv4Prefix(masking: IPv4Address(rawValue: relay), length: relayPrefixLength) }
    /// n + 32 - m
    public var delegatedPrefixLength: Int { prefixLength + 32 - relayPrefixLength }

    /// Whether the address lies in P/n.
    @inlinable
    public func contains(_ address: IPv6Address) -> Bool { address.high & prefixMask == prefixHigh }

    /// Whether the host is in R/m.
    @inlinable
    public func contains(_ host: IPv4Address) -> Bool { host.rawValue & ~suffixMask == relay }

    /// The host whose delegated prefix holds the address, which must lie in P/n (sit: `check_6rd`).
    @inlinable
    public func host(embeddedIn address: IPv6Address) -> IPv4Address {
        IPv4Address(rawValue: relay | UInt32(truncatingIfNeeded: address.high >> shift) & suffixMask)
    }

    /// The prefix that belongs to a host of R/m; nil for other hosts, whose prefix would be somebody else's.
    public func delegatedPrefix(of host: IPv4Address) -> IPv6Prefix? {
        guard contains(host) else { return nil }
        // A shift of 64 (n = 0, m = 32) moves nothing: the suffix is empty then.
        let high = prefixHigh | UInt64(host.rawValue & suffixMask) << shift
        return IPv6Prefix(masking: IPv6Address(high: high, low: 0), length: delegatedPrefixLength)
    }
}
