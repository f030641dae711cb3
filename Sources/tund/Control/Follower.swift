internal import Logging
internal import RingIO
internal import TunnelCore

/// Keeps a tunnel in step with what changes around it: the host's IPv4 address and the way out (`FollowUnderlay`), the TUN with its
/// addresses and routes, and the kernel's routes over it that name a next hop (`FollowTun`). Belongs to the control thread.
///
/// The monitors say only that something has changed; all that it may concern is then looked at anew, and so it is when a monitor
/// could not hold all there was to say. Nothing is remembered of what changed, so nothing can be out of step.
final class Follower {
    /// What the tunnel can be told.
    struct Handles {
        /// Hands a policy to the workers, and returns when they go by it.
        let adopt: (TunnelPolicy) -> Void
        /// Gives all sockets a local address, and the interface of `--dev`.
        let bind: (IPv4Address, _ device: Int32?) throws(ControlError) -> Void
        /// The sockets take nothing until `bind` is called again.
        let rest: () -> Void
        /// The raw sockets.
        let sockets: () -> [Int32]
        /// Lets the workers begin, once.
        let start: (TunnelClaim.Held) throws(Failure) -> Void
    }

    let configuration: TunnelConfiguration
    /// The index that `--dev` had at the start.
    let firstDevice: Int32?
    let handles: Handles
    let log: Logger
    // One of each for the TUN's network namespace and one for the underlay's.
    let netlink: Netlink
    let underlayNetlink: Netlink
    private let monitor: NetlinkMonitor
    private let underlayMonitor: NetlinkMonitor

    /// What holds now; nil: the tunnel waits for its address since it was started.
    var preparation: Preparation?
    let coexistence: Coexistence
    /// Laid when the tunnel has its address, and anew when it has another one.
    var claims: TunnelClaim.Held
    let tun: TunReconciler
    /// Without it nothing is written (`--no-restore`).
    var writes = true

    /// The kernel's routes over the TUN, as far as they are known.
    var kernelRoutes: [Route6] = []
    var nextHops = NextHops()
    /// Nexthop objects over the TUN, and groups with one.
    private var nexthops: Set<UInt32> = []
    /// What the TUN was found to be.
    var tunOutcome = TunReconciler.Outcome.settled
    /// The host lacks an address for the tunnel.
    var isWaiting = false
    /// Going over to another address failed in the middle: sockets and TUN may be of either.
    var isHalfway = false
    var tunNotice = Notice()
    var underlayNotice = Notice()

    /// A thousand routes are a few looks, and a single one is seen at once.
    private var tunLook = Schedule(rest: 0, longestUnrest: 0, pause: 100)
    /// Addresses and routes of the underlay come in groups: a look waits until they have come to rest.
    private var underlayLook = Schedule(rest: 200, longestUnrest: 1000, pause: 0)
    /// When others' changes were last undone, and how often lately.
    private var restored = (last: 0, count: 0)

    /// - Parameters:
    ///   - device: the index of `--dev`.
    ///   - tun: makes the TUN's reconciler, with a netlink socket of the TUN's namespace.
    init(
        _ configuration: TunnelConfiguration, _ underlay: UnderlayNamespace, device: Int32?, log: Logger, _ handles: Handles,
        tun: (borrowing Netlink) throws(ControlError) -> TunReconciler
    ) throws(ControlError) {
        self.configuration = configuration
        firstDevice = device
        self.log = log
        self.handles = handles
        // Monitors first: what changes while the state is read is then heard of.
        monitor = try NetlinkMonitor(.overlay)
        underlayMonitor = try underlay.inside { () throws(ControlError) in try NetlinkMonitor(.underlay) }
        netlink = try Netlink()
        underlayNetlink = try underlay.inside { () throws(ControlError) in try Netlink() }
        coexistence = try underlay.inside { () throws(ControlError) in try Coexistence() }
        let count = TunnelClaim.claims(of: configuration, local: .any, device: nil).count
        claims = try underlay.inside { () throws(ControlError) in try TunnelClaim.Held(room: count) }
        self.tun = try tun(netlink)
        monitor.hearRoutes(over: self.tun.link.index)
        tunLook.request(at: Clock.milliseconds)
        underlayLook.request(at: Clock.milliseconds)
    }

    /// One of them is readable when something has changed. One whose news will be looked at soon is left alone until then (-1): a host where
    /// routes never rest must not keep this thread busy.
    var descriptors: [Int32] {
        [
            tunLook.isDue ? -1 : monitor.descriptor,
            underlayLook.isDue ? -1 : underlayMonitor.descriptor,
        ]
    }

    /// Milliseconds until there is something to do, changes aside; at most `longest`.
    func patience(atMost longest: Int) -> Int {
        let due = min(tunLook.due ?? .max, underlayLook.due ?? .max)
        return max(0, min(longest, due - Clock.milliseconds))
    }

    /// Does what is due.
    /// - Throws: what ends the tunnel.
    func act() throws(Failure) {
        let now = Clock.milliseconds
        if monitor.changes().reduce(false, { concernsTun($1) || $0 }) { tunLook.request(at: now) }
        if !underlayMonitor.changes().isEmpty { underlayLook.request(at: now) }
        if underlayLook.begins(at: now) { underlayLook.ended(at: Clock.milliseconds, try followUnderlay()) }
        if tunLook.begins(at: Clock.milliseconds) { tunLook.ended(at: Clock.milliseconds, try followTun()) }
    }

    /// To be called when the TUN's plan is another one.
    func tunPlanChanged() { tunLook.request(at: Clock.milliseconds) }

    private func concernsTun(_ change: NetlinkMonitor.Change) -> Bool {
        let interface = tun.link.index
        switch change {
        case .link(let index):
            // One that left may come back under another index.
            return index == interface || index == tun.link.master || tunOutcome == .hasLeft
        case .ipv6Address(let other): return other == interface
        case .ipv6Route, .underlay: return true
        case .nexthop(let id, let device, let members):
            // An object that went over to another device takes its routes along.
            let was = nexthops.contains(id)
            let isOver = device == interface || members.contains(where: nexthops.contains)
            if isOver { nexthops.insert(id) } else { nexthops.remove(id) }
            return was || isOver
        case .overrun:
            if let found = try? netlink.nexthops(over: interface) { nexthops.formUnion(found) }
            return true
        }
    }

    /// The TUN may have come back under another index.
    func tunWasFound() { monitor.hearRoutes(over: tun.link.index) }

    /// Others took something away, and it was put back. Where that goes on, less and less haste is made about it.
    func tunWasRestored() {
        let now = Clock.milliseconds
        restored.count = now - restored.last > 60_000 ? 0 : restored.count + 1
        restored.last = now
        tunLook.hold(until: now + min(10_000, 100 << min(restored.count, 10)))
    }
}

/// When to look at something, in milliseconds of the clock.
struct Schedule {
    /// A look comes so long after the last request, and so long after the first one in any case.
    private let rest: Int
    private let longestUnrest: Int
    /// Between two looks.
    private let pause: Int

    /// nil: nothing has changed.
    private(set) var due: Int?
    private var requested = 0
    private var began = 0
    private var earliest = 0
    private var failures = 0

    init(rest: Int, longestUnrest: Int, pause: Int) { (self.rest, self.longestUnrest, self.pause) = (rest, longestUnrest, pause) }

    var isDue: Bool { due != nil }

    mutating func request(at now: Int) {
        if due == nil { requested = now }
        due = max(earliest, min(now + rest, requested + longestUnrest))
    }

    mutating func hold(until moment: Int) { earliest = max(earliest, moment) }

    /// Whether the time has come; there must be an end to it, too.
    mutating func begins(at now: Int) -> Bool {
        guard let due, due <= now else { return false }
        self.due = nil
        began = now
        return true
    }

    /// How a look ended.
    enum Outcome: Equatable, Sendable {
        case done
        /// What was seen is good, but may not have been all.
        case incomplete
        /// Something could not be done.
        case failed
    }

    /// Looks take a twentieth of this thread's time at most.
    mutating func ended(at now: Int, _ outcome: Outcome) {
        earliest = max(earliest, now + max(pause, 20 * (now - began)))
        failures = outcome == .failed ? failures + 1 : 0
        switch outcome {
        case .failed: due = now + min(30_000, 1000 << min(failures - 1, 5))
        case .incomplete: due = max(earliest, now + 300)
        case .done: due = due.map { max(earliest, $0) }
        }
    }
}

/// Something that is said once, however often it is found.
struct Notice {
    private var subject: String?

    /// - Parameter subject: what it is about, if the text tells more, which may change.
    mutating func tell(_ text: String, about subject: String? = nil, to log: Logger) {
        if self.subject != subject ?? text { log.warning("\(text)") }
        self.subject = subject ?? text
    }

    /// All is well again.
    mutating func close() { subject = nil }
}
