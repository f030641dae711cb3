/// What becomes of a packet that is longer than its path takes (net/ipv6/sit.c `ipip6_tunnel_xmit`).
public enum PathMTU: Hashable, Sendable {
    /// It goes without DF, for IPv4 to fragment it where it must: IPv6 needs no smaller MTU than 1280 (RFC 4213 section 3.2.2).
    case fragment
    /// Its source is told, and the packet is dropped.
    case tooBig(mtu: Int)
    /// The path cannot carry the headers of anything (RFC 791: 68 bytes).
    case tooNarrow

    /// - Parameters:
    ///   - length: of the inner packet.
    ///   - path: the longest IPv4 packet that the path takes; 0: less than this one, but nobody says what. Then it is told to be as
    ///     narrow as may be.
    public init(length: Int, path: Int) {
        let mtu = path == 0 ? IPv6Header.leastMTU : path - IPv4Header.minimumLength
        if mtu < 68 {
            self = .tooNarrow
        } else {
            self = length <= IPv6Header.leastMTU ? .fragment : .tooBig(mtu: max(mtu, IPv6Header.leastMTU))
        }
    }
}
