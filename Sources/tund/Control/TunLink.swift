internal import Glibc
internal import TunnelCore

/// What is to be set on the TUN interface, and what leads there.
struct TunLinkPlan: Equatable, Sendable {
    struct Address: Equatable, Sendable, CustomStringConvertible {
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

    /// What `TunLink.bringUp` does, in the same order, in the language of ip(8).
    func commands(device: String) -> [String] {
        var link = "ip link set \(device) mtu \(mtu)"
        if let transmitQueueLength { link += " txqueuelen \(transmitQueueLength)" }
        if !isPointToPoint { link += " multicast off" }
        var commands = ["ip link set \(device) addrgenmode none", link, "ip link set \(device) up"]
        commands += addresses.map { "ip -6 address add \($0) dev \(device) nodad" }
        commands += routes.map { "ip -6 route add \($0) dev \(device)" }
        if takesNextHops { commands.append("ip -6 route append \(Self.nextHops) dev \(device)") }
        if !unreachable.isEmpty {
            commands.append("ip -6 nexthop add id \(Self.nexthopID) dev \(device)")
            commands += unreachable.map {
                "ip -6 route add unreachable \($0) nhid \(Self.nexthopID) metric \(UInt32.max)"
            }
        }
        return commands
    }
}

/// Sets up the TUN interface as a tunnel's.
enum TunLink {
    /// Carries a plan out. Everything it sets goes with the interface, however the process ends: there is nothing to undo.
    ///
    /// A queue has to be attached: without one the interface has no carrier, and takes no nexthop object.
    /// - Throws: at the first step that fails; the steps before it stay.
    static func bringUp(
        _ name: String, _ plan: TunLinkPlan, over netlink: borrowing Netlink
    ) throws(ControlError) -> Tun {
        guard let link = try netlink.link(named: name) else {
            throw ControlError("set up \(name)", reason: "there is no such interface")
        }
        // Before it is up: the kernel makes a link-local address at that moment.
        try netlink.change(
            link, .noAutomaticAddresses, "switch off automatic addresses on \(name)",
            remedy: { $0 == EAFNOSUPPORT || $0 == EOPNOTSUPP ? "the kernel has no IPv6, see ipv6.disable" : nil })
        try netlink.change(link, .mtu(plan.mtu), "set the MTU of \(name) to \(plan.mtu)")
        if let length = plan.transmitQueueLength {
            try netlink.change(
                link, .transmitQueueLength(length), "set the transmit queue length of \(name) to \(length)")
        }
        if !plan.isPointToPoint {
            try netlink.change(link, .multicastOff, "switch off multicast on \(name)")
        }
        try netlink.change(link, .up, "set \(name) up")
        let nexthop = try add(plan, to: link, over: netlink)
        return Tun(link: link, nexthop: nexthop)
    }

    /// What it takes to change an interface that was brought up.
    struct Tun {
        let link: LinkInfo
        /// The nexthop object that its unreachable routes hang on.
        var nexthop: UInt32?
    }

    /// Puts back the addresses and routes that went when the interface went down. Some may be there: addresses stay with
    /// net.ipv6.conf.*.keep_addr_on_down, and others may have been quicker.
    static func restore(_ tun: inout Tun, _ plan: TunLinkPlan, over netlink: borrowing Netlink) throws(ControlError) {
        tun.nexthop = try add(plan, to: tun.link, mayExist: true, over: netlink)
    }

    /// Goes over from one local address to another: what is new comes before the old goes. Routes do not depend on it.
    static func renumber(
        _ tun: inout Tun, from old: TunLinkPlan, to new: TunLinkPlan, over netlink: borrowing Netlink
    ) throws(ControlError) {
        if new.mtu != old.mtu { try netlink.change(tun.link, .mtu(new.mtu), "set the MTU of \(tun.link.name) to \(new.mtu)") }
        var added = new
        added.addresses.removeAll(where: old.addresses.contains)
        added.unreachable.removeAll(where: old.unreachable.contains)
        added.routes = []
        added.takesNextHops = false
        tun.nexthop = try add(added, to: tun.link, nexthop: tun.nexthop, mayExist: true, over: netlink)
        for entry in old.addresses where !new.addresses.contains(entry) {
            try unlessGone { () throws(ControlError) in
                try netlink.removeAddress(entry.address, prefixLength: entry.prefixLength, from: tun.link)
            }
        }
        for prefix in old.unreachable where !new.unreachable.contains(prefix) {
            try unlessGone { () throws(ControlError) in try netlink.removeUnreachable(prefix) }
        }
    }

    private static func unlessGone(_ body: () throws(ControlError) -> Void) throws(ControlError) {
        do { try body() } catch { if ![ESRCH, ENOENT, EADDRNOTAVAIL, ENODEV].contains(error.code) { throw error } }
    }

    /// Adds the addresses and routes of a plan.
    /// - Parameters:
    ///   - nexthop: an object to use for unreachable routes; nil: a new one.
    ///   - mayExist: what is there already is no error.
    /// - Returns: the nexthop object.
    private static func add(
        _ plan: TunLinkPlan, to link: LinkInfo, nexthop: UInt32? = nil, mayExist: Bool = false, over netlink: borrowing Netlink
    ) throws(ControlError) -> UInt32? {
        func tolerating(_ body: () throws(ControlError) -> Void) throws(ControlError) {
            do { try body() } catch { if !(mayExist && error.code == EEXIST) { throw error } }
        }
        // The kernel's words for EACCES say that IPv6 is disabled on the interface.
        let disabled = "new interfaces take it from there: sysctl -w net.ipv6.conf.default.disable_ipv6=0"
        for entry in plan.addresses {
            try tolerating { () throws(ControlError) in
                try netlink.addAddress(entry.address, prefixLength: entry.prefixLength, to: link) {
                    $0 == EACCES ? disabled : nil
                }
            }
        }
        for prefix in plan.routes {
            try tolerating { () throws(ControlError) in
                try netlink.addRoute(to: prefix, over: link) {
                    switch $0 {
                    case EEXIST: "another route to \(prefix) has the same metric: see `ip -6 route show \(prefix)`"
                    case EACCES: disabled
                    default: nil
                    }
                }
            }
        }
        if plan.takesNextHops {
            try tolerating { () throws(ControlError) in
                try netlink.addRoute(to: TunLinkPlan.nextHops, over: link, besideOthers: true) { $0 == EACCES ? disabled : nil }
            }
        }
        var nexthop = nexthop
        if !plan.unreachable.isEmpty {
            let id = if let nexthop { nexthop } else { try addNexthop(link, disabled: disabled, over: netlink) }
            nexthop = id
            for prefix in plan.unreachable {
                try tolerating { () throws(ControlError) in
                    try netlink.addUnreachable(prefix, nexthop: id) {
                        switch $0 {
                        case EEXIST:
                            """
                            another tund with the same domain and local address runs here; or it is a leftover: ip -6 route del \
                            unreachable \(prefix) metric \(UInt32.max)
                            """
                        case EACCES: disabled
                        default: nil
                        }
                    }
                }
            }
        }
        for entry in plan.addresses { waitUntilAtWork(entry.address, on: link) }
        return nexthop
    }

    private static func addNexthop(
        _ link: LinkInfo, disabled: String, over netlink: borrowing Netlink
    ) throws(ControlError) -> UInt32 {
        try netlink.addNexthop(over: link, firstID: TunLinkPlan.nexthopID) {
            switch $0 {
            case EOPNOTSUPP: "needs nexthop objects, Linux 5.3 or later"
            case ENETDOWN: "\(link.name) has to be up and its queue attached"
            case EACCES: disabled
            default: nil
            }
        }
    }

    /// The kernel puts an address to work some time after it has accepted it, also one without duplicate address detection: its
    /// local route comes from a work queue (net/ipv6/addrconf.c `addrconf_dad_work`). Until then peers hear "no route" from
    /// us. Waits for it, at most a second.
    private static func waitUntilAtWork(_ address: IPv6Address, on link: LinkInfo) {
        let descriptor = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
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

    /// What else in the kernel would keep the tunnel from working, one line each.
    /// - Parameter name: the TUN interface, if it exists already.
    static func warnings(of name: String?) -> [String] {
        var warnings: [String] = []
        let root = "/proc/sys/net/ipv6/conf"
        if readFlag("\(root)/all/forwarding") == false {
            warnings.append(
                """
                IPv6 forwarding is off: this host itself can use the tunnel, but nothing behind it can \
                (sysctl -w net.ipv6.conf.all.forwarding=1)
                """)
        }
        for scope in ["all"] + (name.map { [$0] } ?? []) where readFlag("\(root)/\(scope)/disable_ipv6") == true {
            warnings.append("IPv6 is disabled (sysctl -w net.ipv6.conf.\(scope).disable_ipv6=0)")
        }
        return warnings
    }

    /// A sysctl that is 0 or not; nil if it cannot be read.
    private static func readFlag(_ path: String) -> Bool? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var byte: UInt8 = 0
        guard unsafe read(descriptor, &byte, 1) == 1 else { return nil }
        return byte != UInt8(ascii: "0")
    }
}
