internal import TunnelCore

enum LocalChoice: Equatable, Sendable {
    case automatic
    case address(IPv4Address)
}

enum MTUChoice: Equatable, Sendable {
    case automatic
    case bytes(Int)
}

/// `--mss-clamp`
enum MSSClampChoice: Equatable, Sendable {
    case off
    case automatic
    case bytes(UInt16)
}

enum WorkerChoice: Equatable, Sendable {
    case automatic
    case fixed(Int)

    /// One per CPU, up to 4.
    var count: Int {
        switch self {
        case .automatic: min(Processors.count, 4)
        case .fixed(let count): count
        }
    }
}

enum AddressChoice: Equatable, Sendable {
    case automatic
    case none
    case fixed(IPv6Address, prefixLength: Int)
}

/// `--route PREFIX=A`
struct StaticRoute: Equatable, Sendable {
    var prefix: IPv6Prefix
    var endpoint: IPv4Address
}

/// `--isatap`
struct ISATAPLink: Equatable, Sendable {
    /// Its /64s.
    var prefixes: [IPv6Prefix] = []
    /// The potential router list.
    var routers: [IPv4Address] = []
}

/// What the operator asked for, each value valid by itself and with the others. What depends on the host is found out later
/// (`Preparation`).
struct TunnelConfiguration: Equatable, Sendable {
    var name: String
    var local: LocalChoice = .automatic
    /// Point to point.
    var remote: IPv4Address?
    var mode = TunnelMode.ip6ip
    /// nil only point to point and for ISATAP.
    var domain: Domain?
    var isatap: ISATAPLink?
    var relays: [IPv4Address] = []
    var isBorderRelay = false
    var routes: [StaticRoute] = []
    var localPrefixes: [IPv6Prefix] = []
    var sourceCheck = SourceCheck.strict
    /// `::a.b.c.d` belongs to a.b.c.d.
    var takesCompatible = false
    var hasDefaultRoute = false
    var ttl: OuterField = .fixed(64)
    var tos: OuterField = .inherit
    var ecn = ECN.Encapsulation.sit
    var discoversPathMTU = true
    var mtu: MTUChoice = .automatic
    var mssClamp: MSSClampChoice = .off
    var device: String?
    /// SO_MARK of the tunnel's packets; 0: none.
    var mark: UInt32 = 0
    /// Where the IPv4 side is; nil: in the process's own.
    var underlayNamespace: NamespaceChoice?
    var address: AddressChoice = .automatic
    /// Whom the process becomes once everything is open; nil: it stays who it is.
    var user: UserIdentity?
    var workers: Int
    /// Whether each stays on a CPU of its own.
    var pinsWorkers = false
    var offloads = Offloads()
    /// Microseconds that a worker looks for packets before it sleeps.
    var busyPoll = 0

    /// Whether the tunnel waits for an address that the host does not have yet.
    var waits = true
    /// Whether the TUN's addresses and routes are put back when others took them, and follow the host to another address. It takes
    /// CAP_NET_ADMIN while the tunnel runs.
    var restores = true

    /// Whether the tunnel follows the host to another address. In another namespace it cannot claim its packets anew: that takes a
    /// capability which is not kept.
    var isRenumbered: Bool { local == .automatic && restores && underlayNamespace == nil }

    var underlayQuery: UnderlayQuery {
        UnderlayQuery(
            device: device, mark: mark, remote: remote, relays: relays + (isatap?.routers ?? []),
            relayPrefix: domain?.relayPrefix)
    }
}
