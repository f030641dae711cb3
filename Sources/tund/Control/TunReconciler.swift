internal import CLinux
internal import Glibc
internal import RingIO
internal import TunnelCore

/// Keeps the TUN interface as the plan wants it: brings it up, and puts back what others took away. There are no steps from one state
/// to the next: each call looks at what the kernel has and makes up the difference (`TunLinkPlan.changes`). Everything that it sets goes with
/// the interface, however the process ends: there is nothing to undo.
///
/// An interface index says little: a TUN that was moved to another network namespace leaves its index to whoever comes next. So the
/// device is asked for by its descriptor before anything is written.
final class TunReconciler {
    /// What a look at the interface found.
    enum Outcome: Equatable {
        /// Everything was there.
        case settled
        /// It was not, and now is.
        case changed([TunChange])
        /// It is not, and nothing may be written.
        case lacks([TunChange])
        /// It is down, and takes nothing.
        case isDown
        /// Its MTU is below what IPv6 needs.
        case isTooSmall(mtu: Int)
        /// It is in another network namespace, where nothing is touched.
        case hasLeft
        case isGone
    }

    private let tun: TunObserver
    /// nil: nobody can tell.
    private let home: NetworkNamespaceID?
    private(set) var plan: TunLinkPlan
    private var retired = TunLinkPlan.Retired()
    /// A new plan's, until it is set.
    private var mtuDue: Int?
    /// The object that unreachable routes hang on.
    private var nexthop: UInt32?
    /// What was found last.
    private(set) var link: LinkInfo
    /// The routes over the interface, as they were found last.
    private(set) var routes = RoutesOver()
    /// The table of the VRF that the interface is in, or the main one.
    private(set) var table = Route6.mainTable

    /// Sets the interface up, without addresses and routes: `reconcile` brings those.
    ///
    /// A queue has to be attached: without one the interface has no carrier, and takes no nexthop object.
    /// - Throws: at the first step that fails; the steps before it stay.
    init(
        _ tun: consuming TunObserver, named name: String, _ plan: TunLinkPlan, over netlink: borrowing Netlink
    ) throws(ControlError) {
        guard let link = try netlink.link(named: name) else {
            throw ControlError("set up \(name)", reason: "there is no such interface")
        }
        self.tun = tun
        self.link = link
        self.plan = plan
        home = try? NetworkNamespaceID.current()
        for change in plan.bringUp { try apply(change, over: netlink) }
    }

    /// Another plan, for the next `reconcile`: what only the old one wanted will be taken away.
    func adopt(_ plan: TunLinkPlan) {
        retired.add(self.plan)
        if plan.mtu != self.plan.mtu { mtuDue = plan.mtu }
        self.plan = plan
    }

    /// - Parameter writes: else nothing is changed, but what is there is found out.
    /// - Throws: what could not be put there, the first of it; the rest is there.
    func reconcile(over netlink: borrowing Netlink, writes: Bool) throws(ControlError) -> Outcome {
        if let elsewhere = try find(over: netlink, mayAsk: writes) {
            routes = RoutesOver()
            return elsewhere
        }
        routes = try netlink.ipv6Routes(over: link.index)
        if writes, let mtu = mtuDue {
            try apply(.mtu(mtu), over: netlink)
            mtuDue = nil
        }
        if plan.isEmpty && retired == .init() { return .settled }
        let state = try look(over: netlink)
        if !state.isUp { return .isDown }
        if !state.canHaveIPv6 { return .isTooSmall(mtu: state.mtu) }
        let changes = plan.changes(from: state, retired: retired)
        if changes.isEmpty {
            retired = .init()
            return .settled
        }
        if !writes { return .lacks(changes) }
        try apply(changes, over: netlink)
        routes = try netlink.ipv6Routes(over: link.index)
        return .changed(changes)
    }

    /// Finds the interface again, under whatever name and index it has now.
    /// - Parameter mayAsk: CAP_NET_ADMIN is held.
    /// - Returns: nil if it is here.
    private func find(over netlink: borrowing Netlink, mayAsk: Bool) throws(ControlError) -> Outcome? {
        guard let name = tun.name else { return .isGone }
        if mayAsk, let home {
            do throws(SystemError) {
                if try tun.namespace() != home { return .hasLeft }
            } catch {
                // It belongs to another user namespace. EINVAL comes from kernels before 5.7.
                if error.code == EPERM { return .hasLeft }
            }
        }
        guard let found = try netlink.link(named: name), found.kind == "tun" else { return .hasLeft }
        link = found
        return nil
    }

    private func look(over netlink: borrowing Netlink) throws(ControlError) -> TunState {
        var state = TunState(isUp: link.isUp, mtu: link.mtu)
        if link.master != 0, let vrfTable = try netlink.link(index: link.master)?.vrfTable { state.table = vrfTable }
        table = state.table
        if !state.canHaveIPv6 { return state }
        state.generatesAddresses = try netlink.generatesAddresses(link.index) ?? false
        let addresses = try netlink.ipv6Addresses(of: link.index)
        state.addresses = addresses.map(\.address)
        state.kernelMade = addresses.filter(\.isKernelMade).map(\.address)
        state.routes = routes.routes
        if let nexthop { state.hasNexthop = try netlink.nexthops(over: link.index).contains(nexthop) }
        return state
    }

    // MARK: Changes

    /// As many of them as can be made.
    private func apply(_ changes: [TunChange], over netlink: borrowing Netlink) throws(ControlError) {
        var failure: ControlError?
        for change in changes {
            do throws(ControlError) {
                try apply(change, over: netlink)
            } catch {
                failure = failure ?? error
            }
        }
        // What failed is not worth waiting for.
        for case .addAddress(let address) in changes where failure == nil { waitUntilAtWork(address.address) }
        if let failure { throw failure }
    }

    private func apply(_ change: TunChange, over netlink: borrowing Netlink) throws(ControlError) {
        let name = link.name
        switch change {
        case .noAutomaticAddresses:
            try netlink.change(link, .noAutomaticAddresses, "switch off automatic addresses on \(name)") {
                $0 == EAFNOSUPPORT || $0 == EOPNOTSUPP ? "the kernel has no IPv6, see ipv6.disable" : nil
            }
        case .mtu(let bytes): try netlink.change(link, .mtu(bytes), "set the MTU of \(name) to \(bytes)")
        case .transmitQueueLength(let length):
            try netlink.change(link, .transmitQueueLength(length), "set the transmit queue length of \(name) to \(length)")
        case .multicastOff: try netlink.change(link, .multicastOff, "switch off multicast on \(name)")
        case .up: try netlink.change(link, .up, "set \(name) up")
        case .addAddress(let entry):
            try netlink.addAddress(entry.address, prefixLength: entry.prefixLength, to: link, remedy: remedy)
        case .addRoute(let prefix, let besideOthers):
            try netlink.addRoute(to: prefix, over: link, table: table, besideOthers: besideOthers) {
                $0 == EEXIST
                    ? "another route to \(prefix) has the same metric: see `ip -6 route show \(prefix)`" : remedy($0)
            }
        case .addNexthop:
            nexthop = nil
            nexthop = try netlink.addNexthop(over: link, firstID: TunLinkPlan.nexthopID) {
                switch $0 {
                case EOPNOTSUPP: "needs nexthop objects, Linux 5.3 or later"
                case ENETDOWN: "\(name) has to be up and its queue attached"
                default: remedy($0)
                }
            }
        case .addUnreachable(let prefix):
            guard let nexthop else { return }  // that there is none has been told
            try netlink.addUnreachable(prefix, nexthop: nexthop, table: table) {
                $0 == EEXIST
                    ? """
                    another tund with the same domain and local address runs here; or it is a leftover: ip -6 route del \
                    unreachable \(prefix) metric \(UInt32.max)
                    """ : remedy($0)
            }
        case .removeAddress(let entry):
            try unlessGone { () throws(ControlError) in
                try netlink.removeAddress(entry.address, prefixLength: entry.prefixLength, from: link)
            }
        case .removeUnreachable(let prefix):
            try unlessGone { () throws(ControlError) in try netlink.removeUnreachable(prefix, table: table) }
        }
    }

    /// The kernel's words for EACCES say that IPv6 is disabled on the interface.
    private func remedy(_ code: Int32) -> String? {
        code == EACCES
            ? """
            sysctl -w net.ipv6.conf.\(link.name).disable_ipv6=0; new interfaces take it from \
            net.ipv6.conf.default.disable_ipv6
            """ : nil
    }

    private func unlessGone(_ body: () throws(ControlError) -> Void) throws(ControlError) {
        do { try body() } catch { if ![ESRCH, ENOENT, EADDRNOTAVAIL, ENODEV].contains(error.code) { throw error } }
    }

    /// The kernel puts an address to work some time after it has accepted it, also one without duplicate address detection: its
    /// local route comes from a work queue (net/ipv6/addrconf.c `addrconf_dad_work`). Until then peers hear "no route" from
    /// us. Waits for it, at most a second.
    private func waitUntilAtWork(_ address: IPv6Address) {
        let descriptor = socket(AF_INET6, tund_SOCK_DGRAM | tund_SOCK_CLOEXEC, 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        // In a VRF, addresses are those of its table. (Since Linux 5.7 without a capability.)
        if table != Route6.mainTable {
            _ = unsafe link.name.withCString {
                unsafe setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, $0, socklen_t(strlen($0)))
            }
        }
        var name = sockaddr_in6()
        name.sin6_family = sa_family_t(AF_INET6)
        name.sin6_port = UInt16(9).bigEndian
        name.sin6_scope_id = address.isLinkLocal ? UInt32(link.index) : 0
        unsafe withUnsafeMutableBytes(of: &name.sin6_addr) {
            unsafe $0.storeBytes(of: address.high.bigEndian, toByteOffset: 0, as: UInt64.self)
            unsafe $0.storeBytes(of: address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        for _ in 0..<1000 {
            // Sends nothing: it only asks for a route.
            let connected = unsafe withUnsafePointer(to: &name) {
                unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in6>.size))
                }
            }
            if connected == 0 { return }
            usleep(1000)
        }
    }
}
