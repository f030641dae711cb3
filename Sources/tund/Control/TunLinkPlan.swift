internal import TunnelCore

/// What is to be set on the TUN interface, and what leads there.
struct TunLinkPlan: Equatable, Sendable {
    struct Address: Hashable, Sendable, CustomStringConvertible {
        let address: IPv6Address
        /// The whole prefix is on the link.
        let prefixLength: Int

        var description: String { "\(address)/\(prefixLength)" }
    }

    /// bytes
    var mtu: Int
    /// packets; nil leaves the kernel's choice
    var transmitQueueLength: Int?
    /// One remote: multicast works. Else there is nobody to send multicast to, and the interface says so.
    var isPointToPoint: Bool
    var addresses: [Address] = []
    /// Routes over the interface.
    var routes: [IPv6Prefix] = []
    /// The kernel takes gateways of the form `::a.b.c.d`, since ::/96 is on the link.
    var takesNextHops = false
    /// Prefixes that are this host's: what no more specific route takes is answered with "unreachable" and does not enter
    /// the tunnel.
    var unreachable: [IPv6Prefix] = []

    /// The id of the nexthop object that ties the unreachable routes to the interface: "tund" in ASCII. The next free one is
    /// taken where it is in use.
    static let nexthopID: UInt32 = 0x7475_6E64

    static let nextHops = IPv6Prefix(masking: .unspecified, length: 96)
    /// What the kernel gives a route that names none (IP6_RT_PRIO_USER).
    static let metric: UInt32 = 1024
    /// Every other route is preferred.
    static let lastMetric = UInt32.max

    /// Whether IPv6 has anything to do on the interface.
    var isEmpty: Bool { addresses.isEmpty && routes.isEmpty && unreachable.isEmpty && !takesNextHops }
}

/// One change of the interface, its addresses or its routes.
enum TunChange: Equatable, Sendable {
    case noAutomaticAddresses
    case mtu(Int)
    case transmitQueueLength(Int)
    case multicastOff
    case up
    case addAddress(TunLinkPlan.Address)
    /// - besideOthers: the prefix may have routes over other interfaces.
    case addRoute(IPv6Prefix, besideOthers: Bool)
    case addNexthop
    case addUnreachable(IPv6Prefix)
    case removeAddress(TunLinkPlan.Address)
    case removeUnreachable(IPv6Prefix)

    /// In the language of ip(8), for an interface in no VRF.
    func command(device: String) -> String {
        switch self {
        case .noAutomaticAddresses: "ip link set \(device) addrgenmode none"
        case .mtu(let bytes): "ip link set \(device) mtu \(bytes)"
        case .transmitQueueLength(let packets): "ip link set \(device) txqueuelen \(packets)"
        case .multicastOff: "ip link set \(device) multicast off"
        case .up: "ip link set \(device) up"
        case .addAddress(let address): "ip -6 address add \(address) dev \(device) nodad"
        case .addRoute(let prefix, let besideOthers):
            "ip -6 route \(besideOthers ? "append" : "add") \(prefix) dev \(device)"
        case .addNexthop: "ip -6 nexthop add id \(TunLinkPlan.nexthopID) dev \(device)"
        case .addUnreachable(let prefix):
            "ip -6 route add unreachable \(prefix) nhid \(TunLinkPlan.nexthopID) metric \(TunLinkPlan.lastMetric)"
        case .removeAddress(let address): "ip -6 address del \(address) dev \(device)"
        case .removeUnreachable(let prefix): "ip -6 route del unreachable \(prefix) metric \(TunLinkPlan.lastMetric)"
        }
    }
}

extension TunLinkPlan {
    /// What a new interface, which is down, needs before it has addresses. The kernel makes a link-local address when it comes up,
    /// unless told before.
    var bringUp: [TunChange] {
        var changes: [TunChange] = [.noAutomaticAddresses, .mtu(mtu)]
        if let transmitQueueLength { changes.append(.transmitQueueLength(transmitQueueLength)) }
        if !isPointToPoint { changes.append(.multicastOff) }
        return changes + [.up]
    }

    /// What `--check` prints.
    func commands(device: String) -> [String] {
        (bringUp + changes(from: TunState(), retired: .init())).map { $0.command(device: device) }
    }

    /// What the plan wants less what is there, and what an earlier plan left there: new things first, so that there is always a way.
    ///
    /// MTU and flags are the operator's once the interface is up. While it is down, or too small for IPv6, it takes neither
    /// addresses nor routes.
    func changes(from state: TunState, retired: Retired) -> [TunChange] {
        if !state.canHaveIPv6 { return [] }
        var changes: [TunChange] = []
        if state.generatesAddresses && !isEmpty { changes.append(.noAutomaticAddresses) }
        for address in addresses where !state.addresses.contains(address) { changes.append(.addAddress(address)) }
        for prefix in routes where !state.hasRoute(to: prefix) { changes.append(.addRoute(prefix, besideOthers: false)) }
        if takesNextHops && !state.hasRoute(to: Self.nextHops) {
            changes.append(.addRoute(Self.nextHops, besideOthers: true))
        }
        let missing = unreachable.filter { !state.hasUnreachable($0) }
        if !missing.isEmpty && !state.hasNexthop { changes.append(.addNexthop) }
        changes += missing.map { .addUnreachable($0) }
        if !isEmpty { changes += state.kernelMade.filter { !addresses.contains($0) }.map { .removeAddress($0) } }
        for address in retired.addresses where state.addresses.contains(address) && !addresses.contains(address) {
            changes.append(.removeAddress(address))
        }
        for prefix in retired.unreachable where state.hasUnreachable(prefix) && !unreachable.contains(prefix) {
            changes.append(.removeUnreachable(prefix))
        }
        return changes
    }

    /// What earlier plans set up and a later one no longer wants.
    struct Retired: Equatable, Sendable {
        var addresses: Set<Address> = []
        var unreachable: Set<IPv6Prefix> = []

        mutating func add(_ plan: TunLinkPlan) {
            addresses.formUnion(plan.addresses)
            unreachable.formUnion(plan.unreachable)
        }
    }
}

/// What the kernel has of the TUN interface.
struct TunState: Equatable, Sendable {
    var isUp = true
    /// bytes
    var mtu = 1500
    /// The routing table of the VRF that it is in, or the main one.
    var table = Route6.mainTable
    /// The kernel makes addresses of its own: it forgets the setting with an MTU below 1280.
    var generatesAddresses = false
    var addresses: [TunLinkPlan.Address] = []
    /// Those among them that it made.
    var kernelMade: [TunLinkPlan.Address] = []
    /// Over the interface.
    var routes: [Route6] = []
    /// The tunnel's nexthop object is there.
    var hasNexthop = false

    var canHaveIPv6: Bool { isUp && mtu >= IPv6Header.leastMTU }

    /// Also one with a gateway: others may have replaced the tunnel's.
    func hasRoute(to prefix: IPv6Prefix) -> Bool {
        routes.contains {
            $0.prefix == prefix && $0.kind == .unicast && $0.table == table && $0.metric == TunLinkPlan.metric
        }
    }

    func hasUnreachable(_ prefix: IPv6Prefix) -> Bool {
        routes.contains {
            $0.prefix == prefix && $0.kind == .unreachable && $0.table == table && $0.metric == TunLinkPlan.lastMetric
        }
    }
}
