internal import TunnelCore

enum LocalChoice: Equatable, Sendable {
    case automatic
    case address(IPv4Address)
}

enum MTUChoice: Equatable, Sendable {
    case automatic
    case bytes(Int)
}

enum WorkerChoice: Equatable, Sendable {
    case automatic
    case fixed(Int)

    /// More than four rarely have enough to do each.
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

/// What the operator asked for, each value valid by itself and with the others. What depends on the host is found out later
/// (`Preparation`).
struct TunnelConfiguration: Equatable, Sendable {
    var name: String
    var local: LocalChoice = .automatic
    /// Point to point.
    var remote: IPv4Address?
    /// nil only point to point.
    var domain: Domain?
    var relays: [IPv4Address] = []
    var isBorderRelay = false
    var routes: [StaticRoute] = []
    var localPrefixes: [IPv6Prefix] = []
    var hasDefaultRoute = false
    var ttl: OuterField = .fixed(64)
    var tos: OuterField = .inherit
    var discoversPathMTU = true
    var mtu: MTUChoice = .automatic
    var device: String?
    var address: AddressChoice = .automatic
    var workers: Int
    var offloads = Offloads()
    /// Microseconds that a worker looks for packets before it sleeps.
    var busyPoll = 0
}
