internal import Logging
internal import TunnelCore

/// Keeps a running tunnel in step with what changes around it: the kernel's routes over the TUN that name a next hop
/// (`FollowRoutes`), the host's IPv4 address (`FollowAddress`), and the TUN's being up. Belongs to the control thread.
///
/// The monitor says only that something has changed; all of it is then looked at anew.
final class Follower {
    /// What the tunnel can be told while it runs.
    struct Handles {
        /// Hands a policy to the workers, and returns when they go by it.
        let adopt: (TunnelPolicy) -> Void
        /// Gives all sockets another local address.
        let rebind: (IPv4Address) throws(ControlError) -> Void
    }

    let handles: Handles
    let log: Logger
    // One of each for the TUN's network namespace and one for the underlay's.
    let netlink: Netlink
    let underlayNetlink: Netlink
    private let monitor: NetlinkMonitor
    private let underlayMonitor: NetlinkMonitor
    /// What holds now; renumbering makes another one.
    var preparation: Preparation
    var claims: TunnelClaim.Held
    var tun: TunLink.Tun

    var nextHops = NextHops()
    /// Whether the host lacks an address for the tunnel, and has been told so.
    var isWaiting = false
    /// Whether renumbering failed: sockets and TUN may be of either address then.
    var isHalfway = false
    private var wasDown = false

    // When to look, in milliseconds of the clock; nil: nothing has changed.
    private var routesDue: Int? = 0
    private var addressDue: Int? = 0
    private var routesSeen = 0
    private var addressChanged = 0

    /// Between two looks at the routes: a thousand of them are a few looks, and a single one is seen at once.
    private static let routesPause = 100
    /// Addresses and IPv4 routes have come to rest after so long, and are looked at after so long in any case.
    private static let (rest, longestUnrest) = (200, 1000)
    private static let retry = 1000

    init(
        _ tun: TunLink.Tun, _ preparation: Preparation, _ claims: TunnelClaim.Held, log: Logger, _ handles: Handles
    ) throws(ControlError) {
        self.tun = tun
        self.preparation = preparation
        self.claims = claims
        self.log = log
        self.handles = handles
        netlink = try Netlink()
        monitor = try NetlinkMonitor(.overlay)
        underlayNetlink = try preparation.underlay.inside { () throws(ControlError) in try Netlink() }
        underlayMonitor = try preparation.underlay.inside { () throws(ControlError) in try NetlinkMonitor(.underlay) }
    }

    /// One of them is readable when something has changed.
    var descriptors: [Int32] { [monitor.descriptor, underlayMonitor.descriptor] }

    /// Milliseconds until there is something to do, changes aside; at most `longest`.
    func patience(atMost longest: Int) -> Int {
        let due = min(routesDue ?? .max, addressDue ?? .max)
        return max(0, min(longest, due - Clock.milliseconds))
    }

    /// Does what is due.
    func act() {
        let now = Clock.milliseconds
        for change in monitor.changes() {
            switch change {
            case .ipv6Route(let interface):
                if interface == nil || interface == tun.link.index { routesChanged(now) }
            case .link(let index, let isUp):
                if index != tun.link.index { continue }
                routesChanged(now)
                if !isUp { wasDown = true } else if wasDown { cameUp() }
            case .overrun:
                routesChanged(now)
            case .ipv4Address, .ipv4Route: break
            }
        }
        if !underlayMonitor.changes().isEmpty { addressChanged(now) }
        if let due = routesDue, due <= now {
            routesDue = followRoutes() ? nil : now + Self.retry
            routesSeen = Clock.milliseconds
        }
        if let due = addressDue, due <= now { addressDue = followAddress() ? nil : now + Self.retry }
    }

    private func routesChanged(_ now: Int) {
        if routesDue == nil { routesDue = max(now, routesSeen + Self.routesPause) }
    }

    private func addressChanged(_ now: Int) {
        if addressDue == nil { addressChanged = now }
        addressDue = min(now + Self.rest, addressChanged + Self.longestUnrest)
    }

    /// The TUN was down, which has cost it its addresses and routes.
    private func cameUp() {
        wasDown = false
        if preparation.configuration.address == .none { return }
        let name = tun.link.name
        if !preparation.configuration.isRenumbered {
            log.warning("\(name) was down and has lost its addresses and routes: restart tund (--local auto can put them back)")
            return
        }
        do {
            try TunLink.restore(&tun, preparation.link, over: netlink)
            log.info("\(name) was down: put its addresses and routes back")
        } catch {
            log.warning("\(error)")
        }
    }
}
