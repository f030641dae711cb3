/// Whom an overlay address belongs to.
public enum Owner: Hashable, Sendable, BitwiseCopyable {
    /// This host: its delegated prefix, or a local prefix behind it.
    case local
    /// The host whose IPv4 address is embedded (the domain's P/n).
    case embedded
    /// The host whose IPv4 address is the last 32 bits: an IPv4-compatible address, or an ISATAP address of the link.
    case trailing
    /// The host a static route names.
    case endpoint(IPv4Address)
    /// Outside the domain and every route: the border relays' business.
    case outside
    /// Never crosses a tunnel of many peers: ::/96 (unspecified, loopback, v4-compatible) and v4-mapped (RFC 4213 section 3.6).
    case invalid
    /// fe80::/10
    case linkLocal
    /// ff00::/8
    case multicast
}

/// Why a prefix cannot be in a plan.
public enum AddressPlanError: Error, Equatable, Sendable {
    /// The prefix lies in address space that never crosses a tunnel.
    case reserved(IPv6Prefix)
    /// The endpoint of the route is no host's address.
    case endpointNotUnicast(IPv6Prefix, IPv4Address)
    /// The route's endpoint is this host.
    case endpointIsLocal(IPv6Prefix)
    /// The route would take away what this host owns: its delegated prefix or a local prefix, exactly.
    case routeIsLocal(IPv6Prefix)
}

extension AddressPlanError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .reserved(let prefix):
            "\(prefix) is unspecified, loopback, IPv4-mapped, link-local or multicast space and is never routed"
        case .endpointNotUnicast(let prefix, let address): "\(address), the endpoint for \(prefix), is not the address of a host"
        case .routeIsLocal(let prefix): "\(prefix) is this host's own and cannot be another one's"
        case .endpointIsLocal(let prefix): "the endpoint for \(prefix) is this tunnel's own address"
        }
    }
}

/// The one table behind every question about an inner address: where to send to (uplink destination), who may send it
/// (uplink and downlink source), who takes it (downlink destination).
///
/// The domain, the static routes, the local prefixes and the reserved ranges stand in it side by side, so that the longest
/// prefix decides between them: a route inside the domain takes its addresses away from the embedded hosts, a route
/// around the domain does not.
public struct AddressPlan: Sendable {
    @usableFromInline let table: RouteTable<Owner>
    /// Two prefixes that most lookups end in, asked before the table: the own delegated one and the domain's.
    @usableFromInline let own: Shortcut
    @usableFromInline let domain: Shortcut

    /// A prefix of at most 64 bits inside which the table has nothing longer; or one that holds no address.
    @usableFromInline
    struct Shortcut: Sendable {
        @usableFromInline let high: UInt64
        @usableFromInline let mask: UInt64

        init(_ prefix: IPv6Prefix?, besides others: [IPv6Prefix]) {
            guard let prefix, !others.contains(where: { $0.length >= prefix.length && prefix.contains($0.address) }) else {
                (high, mask) = (1, 0)
                return
            }
            (high, mask) = (prefix.address.high, IPv6Prefix.mask(prefix.length).high)
        }

        @inlinable
        func contains(_ address: IPv6Address) -> Bool { address.high & mask == high }
    }

    /// - Parameters:
    ///   - local: the host's own underlay address, whose delegated prefix is local.
    ///   - localPrefixes: what else lives behind this host.
    ///   - routes: prefixes that a named host holds.
    ///   - automatic: /96s whose addresses end in their host's, IPv4-compatible or ISATAP ones; this host's own are local.
    public init(
        domain: Domain?, local: IPv4Address, localPrefixes: [IPv6Prefix] = [],
        routes: [(prefix: IPv6Prefix, endpoint: IPv4Address)] = [], automatic: [IPv6Prefix] = []
    ) throws(AddressPlanError) {
        var entries: [(prefix: IPv6Prefix, value: Owner)] = []
        var own = localPrefixes
        if let domain {
            if Self.isReserved(domain.prefix) { throw .reserved(domain.prefix) }
            entries.append((domain.prefix, .embedded))
            if let delegated = domain.delegatedPrefix(of: local) { own.append(delegated) }
        }
        for route in routes {
            if let error = Self.refusal(of: route.prefix, behind: route.endpoint, local: local, own: own) { throw error }
            entries.append((route.prefix, .endpoint(route.endpoint)))
        }
        for prefix in own {
            if Self.isReserved(prefix) { throw .reserved(prefix) }
            entries.append((prefix, .local))
        }
        for (prefix, owner) in Self.reserved { entries.append((prefix, owner)) }
        for prefix in automatic {
            entries.append((prefix, .trailing))
            let address = IPv6Address(high: prefix.address.high, low: prefix.address.low | UInt64(local.rawValue))
            entries.append((IPv6Prefix(masking: address, length: 128), .local))
        }
        // :: and ::1, whatever becomes of ::/96
        entries.append((IPv6Prefix(masking: .unspecified, length: 127), .invalid))
        table = RouteTable(entries, fallback: .outside)
        let delegated = domain?.delegatedPrefix(of: local)
        // The delegated prefix lies inside the domain, too, but is asked for first.
        let others = routes.map(\.prefix) + localPrefixes + Self.reserved.map(\.0) + automatic
        self.own = Shortcut(delegated, besides: others)
        self.domain = Shortcut(domain?.prefix, besides: others)
    }

    @inlinable
    public func owner(of address: IPv6Address) -> Owner {
        if own.contains(address) { return .local }
        if domain.contains(address) { return .embedded }
        return table.lookup(address)
    }

    /// Why a route cannot stand in the plan of a host.
    /// - Parameter own: its prefixes.
    public static func refusal(
        of prefix: IPv6Prefix, behind endpoint: IPv4Address, local: IPv4Address, own: [IPv6Prefix]
    ) -> AddressPlanError? {
        if isReserved(prefix) { return .reserved(prefix) }
        if !endpoint.isUnicastHost { return .endpointNotUnicast(prefix, endpoint) }
        if endpoint == local { return .endpointIsLocal(prefix) }
        return own.contains(prefix) ? .routeIsLocal(prefix) : nil
    }

    private static var reserved: [(IPv6Prefix, Owner)] {
        [
            (IPv6Prefix(masking: .unspecified, length: 96), .invalid),
            (IPv6Prefix(masking: IPv6Address(high: 0, low: 0xFFFF << 32), length: 96), .invalid),
            (IPv6Prefix(masking: IPv6Address(high: 0xFE80 << 48, low: 0), length: 10), .linkLocal),
            (IPv6Prefix(masking: IPv6Address(high: 0xFF00 << 48, low: 0), length: 8), .multicast),
        ]
    }

    /// Whether all of a prefix is address space that never crosses a domain tunnel.
    public static func isReserved(_ prefix: IPv6Prefix) -> Bool {
        reserved.contains { $0.0.length <= prefix.length && $0.0.contains(prefix.address) }
    }
}
