internal import CLinux
internal import CNetlink
internal import Glibc
internal import TunnelCore

/// What the kernel would do with a packet to one destination.
struct Route4: Equatable, Sendable {
    /// rtm_type: RTN_UNICAST, RTN_LOCAL, ... (linux/rtnetlink.h)
    enum Kind: Equatable, Sendable {
        case unicast, local, broadcast, multicast
        case other(UInt8)
    }

    let interfaceIndex: Int32
    /// The source address that a socket without one would get.
    let source: IPv4Address?
    /// The route's `mtu` metric, bytes; nil: only the interface's MTU limits.
    let mtu: Int?
    let type: Kind
}

/// A route over one interface, of any table, as the kernel has it.
struct Route6: Equatable, Sendable {
    enum Kind: Equatable, Sendable {
        case unicast, unreachable
    }

    let prefix: IPv6Prefix
    var kind = Kind.unicast
    let table: UInt32
    /// The smallest one wins.
    let metric: UInt32
    /// Of each next hop over the interface; nil: the prefix is on the link.
    let gateways: [IPv6Address?]

    static let mainTable = UInt32(RT_TABLE_MAIN.rawValue)
}

/// What one look at the routes over an interface found.
struct RoutesOver: Equatable, Sendable {
    var routes: [Route6] = []
    /// Other changes interrupted every dump: some routes may be missing, and some gone since.
    var isInterrupted = false
    /// So little that one part of a dump held it, which the kernel makes under the table's lock.
    var isOnePart = false
}

/// How the tunnel's sockets would ask for a route.
struct RouteKey: Equatable, Sendable {
    /// The local address that they are bound to; nil: the kernel is to choose one.
    var source: IPv4Address?
    /// The index of the interface, or VRF, that they are bound to.
    var device: Int32?
    /// SO_MARK
    var mark: UInt32 = 0
}

extension Netlink {
    /// The kernel's own lookup, with its rules and tables, for a packet that this host sends; nil: unreachable, or the source is no
    /// address of this host.
    func ipv4Route(to destination: IPv4Address, _ key: RouteKey) throws(ControlError) -> Route4? {
        guard let route = try ipv4Route(to: destination, key, flags: 0) else { return nil }
        if route.mtu == nil { return route }
        // It may be a path MTU that the kernel has learnt, which any host can forge. The route itself says what it has.
        let own = try ipv4Route(to: destination, key, flags: UInt32(RTM_F_FIB_MATCH))?.mtu
        return Route4(interfaceIndex: route.interfaceIndex, source: route.source, mtu: own, type: route.type)
    }

    /// - Parameter flags: RTM_F_FIB_MATCH: the route as it is configured (Linux 4.13); else what becomes of a packet.
    private func ipv4Route(to destination: IPv4Address, _ key: RouteKey, flags: UInt32) throws(ControlError) -> Route4? {
        var result: OpaquePointer?
        do throws(ControlError) {
            // rtnl_route_lookup() knows neither source nor device nor mark.
            try exchange("look up the route to \(destination)") {
                guard let message = unsafe nlmsg_alloc_simple(Int32(RTM_GETROUTE), 0) else { return -NLE_NOMEM }
                defer { unsafe nlmsg_free(message) }
                var header = rtmsg()
                header.rtm_family = UInt8(AF_INET)
                header.rtm_dst_len = 32
                header.rtm_src_len = key.source == nil ? 0 : 32
                header.rtm_flags = flags
                unsafe nlmsg_append(message, &header, MemoryLayout<rtmsg>.size, Int32(NLMSG_ALIGNTO))
                unsafe nla_put_u32(message, Int32(RTA_DST.rawValue), destination.rawValue.bigEndian)
                if let source = key.source { unsafe nla_put_u32(message, Int32(RTA_SRC.rawValue), source.rawValue.bigEndian) }
                if let device = key.device { unsafe nla_put_u32(message, Int32(RTA_OIF.rawValue), UInt32(device)) }
                if key.mark != 0 { unsafe nla_put_u32(message, Int32(RTA_MARK.rawValue), key.mark) }
                let received = unsafe withUnsafeMutablePointer(to: &result) { unsafe ask(message, keepRoute, $0) }
                return received < 0 ? received : unsafe nl_wait_for_ack(socket)
            }
        } catch {
            // No route; or an unreachable, prohibit or blackhole one, in this order. ENODEV: the device is gone, or down.
            if let code = error.code, [ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL, ENODEV, ENETDOWN].contains(code) { return nil }
            throw error
        }
        guard let route = unsafe result else { return nil }
        defer { unsafe rtnl_route_put(route) }
        guard let nexthop = unsafe rtnl_route_nexthop_n(route, 0) else { return nil }
        var mtu: UInt32 = 0
        let hasMTU = unsafe rtnl_route_get_metric(route, Int32(RTAX_MTU), &mtu) == 0 && mtu != 0
        return Route4(
            interfaceIndex: unsafe rtnl_route_nh_get_ifindex(nexthop),
            source: unsafe IPv4Address(of: rtnl_route_get_pref_src(route)),
            mtu: hasMTU ? Int(mtu) : nil,
            type: Route4.Kind(unsafe rtnl_route_get_type(route)))
    }

    /// Sends a request and hands each answer to `take`, with its argument.
    func ask(_ message: OpaquePointer, _ take: nl_recvmsg_msg_cb_t, _ argument: UnsafeMutableRawPointer) -> Int32 {
        guard let ours = unsafe nl_socket_get_cb(socket), let callbacks = unsafe nl_cb_clone(ours) else { return -NLE_NOMEM }
        defer {
            unsafe nl_cb_put(callbacks)
            unsafe nl_cb_put(ours)
        }
        unsafe nl_cb_set(callbacks, NL_CB_VALID, NL_CB_CUSTOM, take, argument)
        let sent = unsafe nl_send_auto(socket, message)
        return sent < 0 ? sent : unsafe nl_recvmsgs(socket, callbacks)
    }

    /// The unicast and unreachable routes over an interface, of every table, in the kernel's order. Routes that hold for some sources
    /// only are left out.
    ///
    /// A change anywhere in the table interrupts a dump of several parts, which may then lack routes (`RouteWitness`): it is made
    /// again a few times, and where all were interrupted, what any of them saw counts.
    func ipv6Routes(over interface: Int32) throws(ControlError) -> RoutesOver {
        var seen: [Route6] = []
        for _ in 0..<6 {
            let witness = try RouteWitness()
            var found = try dumpIPv6Routes(over: interface)
            if !found.isInterrupted && (found.isOnePart || !witness.hasHeard) { return found }
            found.isInterrupted = true
            var known = Set(seen.map(\.identity))
            seen += found.routes.filter { known.insert($0.identity).inserted }
        }
        return RoutesOver(routes: seen, isInterrupted: true)
    }

    private func dumpIPv6Routes(over interface: Int32) throws(ControlError) -> RoutesOver {
        let attempt = "list the IPv6 routes"
        guard let message = unsafe nlmsg_alloc_simple(Int32(RTM_GETROUTE), NLM_F_DUMP) else {
            throw ControlError(attempt, code: ENOMEM)
        }
        defer { unsafe nlmsg_free(message) }
        var header = rtmsg()
        header.rtm_family = UInt8(AF_INET6)
        unsafe nlmsg_append(message, &header, MemoryLayout<rtmsg>.size, Int32(NLMSG_ALIGNTO))
        unsafe nla_put_u32(message, Int32(RTA_OIF.rawValue), UInt32(interface))
        // So asked, kernels since 4.20 send only what is over the interface. Not for good: libnl's own requests are not strict.
        setOption(NETLINK_GET_STRICT_CHK, to: 1)
        defer { setOption(NETLINK_GET_STRICT_CHK, to: 0) }

        let dump = RouteDump(interface: interface)
        var isInterrupted = false
        try exchange(attempt) {
            let result = unsafe ask(message, keepRoutes, Unmanaged.passUnretained(dump).toOpaque())
            isInterrupted = result == -NLE_DUMP_INTR
            return isInterrupted ? 0 : result
        }
        // A part has room for a page, less its bookkeeping (NLMSG_GOODSIZE), or for more.
        return RoutesOver(routes: dump.routes, isInterrupted: isInterrupted, isOnePart: dump.bytes <= 2048)
    }

    /// The nexthop objects over an interface, by id (Linux 5.3; none before).
    func nexthops(over interface: Int32) throws(ControlError) -> Set<UInt32> {
        let dump = NexthopDump()
        var attempts = 4
        while attempts > 0, try isDumpInterrupted(of: interface, into: dump) { attempts -= 1 }
        return dump.ids
    }

    private func isDumpInterrupted(of interface: Int32, into dump: NexthopDump) throws(ControlError) -> Bool {
        let attempt = "list the nexthop objects"
        guard let message = unsafe nlmsg_alloc_simple(Int32(RTM_GETNEXTHOP), NLM_F_DUMP) else {
            throw ControlError(attempt, code: ENOMEM)
        }
        defer { unsafe nlmsg_free(message) }
        var header = nhmsg()
        unsafe nlmsg_append(message, &header, MemoryLayout<nhmsg>.size, Int32(NLMSG_ALIGNTO))
        unsafe nla_put_u32(message, Int32(NHA_OIF), UInt32(interface))
        var isInterrupted = false
        do throws(ControlError) {
            try exchange(attempt) {
                let result = unsafe ask(message, keepNexthop, Unmanaged.passUnretained(dump).toOpaque())
                isInterrupted = result == -NLE_DUMP_INTR
                return isInterrupted ? 0 : result
            }
        } catch {
            if error.code != EOPNOTSUPP { throw error }
        }
        return isInterrupted
    }
}

extension Route6 {
    /// What tells two routes of one interface apart.
    var identity: [UInt64] {
        [prefix.address.high, prefix.address.low, UInt64(prefix.length), UInt64(table), UInt64(metric)]
    }
}

private let keepRoutes: nl_recvmsg_msg_cb_t = { message, argument in
    unsafe Unmanaged<RouteDump>.fromOpaque(argument!).takeUnretainedValue().add(nlmsg_hdr(message))
    return Int32(NL_OK.rawValue)
}

/// Collects a dump's routes.
private final class RouteDump {
    let interface: Int32
    var routes: [Route6] = []
    /// Of all messages.
    var bytes = 0

    init(interface: Int32) { self.interface = interface }

    func add(_ message: UnsafeMutablePointer<nlmsghdr>?) {
        if let message = unsafe message { bytes += unsafe Int(message.pointee.nlmsg_len) }
        var parsed: OpaquePointer?
        guard unsafe rtnl_route_parse(message, &parsed) >= 0, let route = unsafe parsed else { return }
        defer { unsafe rtnl_route_put(route) }
        let type = unsafe Int(rtnl_route_get_type(route))
        guard unsafe rtnl_route_get_family(route) == AF_INET6, type == RTN_UNICAST || type == RTN_UNREACHABLE,
            unsafe rtnl_route_get_flags(route) & UInt32(RTM_F_CLONED) == 0,
            let prefix = unsafe IPv6Prefix(of: rtnl_route_get_dst(route)),
            unsafe rtnl_route_get_src(route) == nil || nl_addr_get_prefixlen(rtnl_route_get_src(route)) == 0
        else { return }
        var gateways: [IPv6Address?] = []
        for index in 0..<(unsafe rtnl_route_get_nnexthops(route)) {
            guard let nexthop = unsafe rtnl_route_nexthop_n(route, index),
                unsafe rtnl_route_nh_get_ifindex(nexthop) == interface
            else { continue }
            gateways.append(unsafe IPv6Address(of: rtnl_route_nh_get_gateway(nexthop)))
        }
        if gateways.isEmpty {
            // With net.ipv4.nexthop_compat_mode 0 a nexthop object's route tells the object only, not where that leads. Kernels that have
            // them (5.3) sent nothing but what is over the interface.
            let start = Int32(MemoryLayout<rtmsg>.size)
            if unsafe nlmsg_find_attr(message, start, Int32(RTA_NH_ID.rawValue)) == nil { return }
            gateways = [nil]
        }
        routes.append(
            Route6(
                prefix: prefix, kind: type == RTN_UNICAST ? .unicast : .unreachable, table: unsafe rtnl_route_get_table(route),
                metric: unsafe rtnl_route_get_priority(route), gateways: gateways))
    }
}

private let keepNexthop: nl_recvmsg_msg_cb_t = { message, argument in
    unsafe Unmanaged<NexthopDump>.fromOpaque(argument!).takeUnretainedValue().add(nlmsg_hdr(message))
    return Int32(NL_OK.rawValue)
}

private final class NexthopDump {
    var ids: Set<UInt32> = []

    func add(_ message: UnsafeMutablePointer<nlmsghdr>?) {
        guard let message = unsafe message, unsafe Int(message.pointee.nlmsg_type) == RTM_NEWNEXTHOP,
            let id = unsafe nlmsg_find_attr(message, Int32(MemoryLayout<nhmsg>.size), Int32(NHA_ID))
        else { return }
        ids.insert(unsafe nla_get_u32(id))
    }
}

extension Route4.Kind {
    fileprivate init(_ type: UInt8) {
        switch Int(type) {
        case RTN_UNICAST: self = .unicast
        case RTN_LOCAL: self = .local
        case RTN_BROADCAST: self = .broadcast
        case RTN_MULTICAST: self = .multicast
        default: self = .other(type)
        }
    }
}

/// Keeps the route of an answer; the argument points to where.
private let keepRoute: nl_recvmsg_msg_cb_t = { message, argument in
    unsafe rtnl_route_parse(nlmsg_hdr(message), argument?.assumingMemoryBound(to: OpaquePointer?.self))
}
