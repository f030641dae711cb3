internal import Logging
internal import TunnelCore

/// Keeps a running tunnel in step with what changes around it: with the kernel's routes over the TUN that name a next hop.
/// Belongs to the control thread.
final class Follower {
    private let tun: LinkInfo
    private let preparation: Preparation
    private let log: Logger
    /// Hands a policy to the workers.
    private let adopt: (TunnelPolicy) -> Void
    private let netlink: Netlink
    private let monitor: NetlinkMonitor

    private var nextHops = NextHops()
    /// When to look at the routes, in milliseconds of the clock; nil: nothing has changed.
    private var routesDue: Int? = 0
    /// Changes come in bursts: between two looks the kernel gets so many milliseconds. A single change is followed at once.
    private static let pause = 100

    /// - Parameter tun: set up already.
    init(
        _ tun: LinkInfo, _ preparation: Preparation, log: Logger, adopt: @escaping (TunnelPolicy) -> Void
    ) throws(ControlError) {
        self.tun = tun
        self.preparation = preparation
        self.log = log
        self.adopt = adopt
        netlink = try Netlink()
        monitor = try NetlinkMonitor(.overlay)
    }

    /// Readable when something has changed.
    var descriptor: Int32 { monitor.descriptor }

    /// Milliseconds until there is something to do, changes aside; at most `longest`.
    func patience(atMost longest: Int) -> Int { max(0, min(longest, (routesDue ?? .max) - Clock.milliseconds)) }

    /// Does what is due.
    func act() {
        for change in monitor.changes() {
            let concerns =
                switch change {
                case .ipv6Route(let interface): interface == nil || interface == tun.index
                case .link(let index, _): index == tun.index
                case .overrun: true
                case .ipv4Address, .ipv4Route: false
                }
            if concerns && routesDue == nil { routesDue = max(Clock.milliseconds, lastLook + Self.pause) }
        }
        if let due = routesDue, due <= Clock.milliseconds { followRoutes() }
    }

    private var lastLook = 0

    private func followRoutes() {
        guard let domain = preparation.configuration.domain, preparation.configuration.remote == nil else {
            routesDue = nil
            return
        }
        defer { lastLook = Clock.milliseconds }
        do {
            let found = NextHops(
                of: try netlink.ipv6Routes(over: tun.index), local: preparation.local, broadcast: preparation.path.broadcast,
                domain: domain, own: preparation.ownPrefixes)
            routesDue = nil
            if found == nextHops { return }
            warn(of: found)
            if found.routes != nextHops.routes {
                adopt(try preparation.policy(following: found.routes))
                log.debug("following \(found.routes.count) routes with an IPv4 next hop")
            }
            nextHops = found
        } catch {
            log.warning("\(error)")
            routesDue = Clock.milliseconds + 1000
        }
    }

    /// Of each route once; of many, some.
    private func warn(of found: NextHops) {
        let known = Set(nextHops.warnings)
        let news = found.warnings.filter { !known.contains($0) }
        for warning in news.prefix(5) { log.warning("\(warning)") }
        if news.count > 5 { log.warning("and \(news.count - 5) routes more") }
    }
}
