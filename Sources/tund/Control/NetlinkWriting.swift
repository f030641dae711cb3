internal import CLinux
internal import CNetlink
internal import Glibc
internal import TunnelCore

/// Changes, each one request. All need CAP_NET_ADMIN.
extension Netlink {
    /// One change of an interface; every other attribute and flag stays.
    enum LinkChange: Equatable, Sendable {
        /// The kernel makes no IPv6 address of its own when the interface comes up (IN6_ADDR_GEN_MODE_NONE).
        case noAutomaticAddresses
        /// bytes
        case mtu(Int)
        /// packets
        case transmitQueueLength(Int)
        case multicastOff
        case up
    }

    /// - Parameter attempt: what it is for, as `ControlError.attempt`.
    func change(
        _ link: LinkInfo, _ change: LinkChange, _ attempt: String, remedy: (Int32) -> String? = { _ in nil }
    ) throws(ControlError) {
        // libnl computes the new flags from the current ones, so these have to be fresh.
        var current: OpaquePointer?
        try exchange(attempt) { unsafe rtnl_link_get_kernel(socket, link.index, nil, &current) }
        defer { unsafe rtnl_link_put(current) }
        guard let changes = unsafe rtnl_link_alloc() else { throw ControlError(attempt, code: ENOMEM) }
        defer { unsafe rtnl_link_put(changes) }
        try exchange(attempt, remedy: remedy) {
            switch change {
            case .noAutomaticAddresses:
                let result = unsafe rtnl_link_inet6_set_addr_gen_mode(changes, UInt8(IN6_ADDR_GEN_MODE_NONE.rawValue))
                if result < 0 { return result }
            case .mtu(let bytes): unsafe rtnl_link_set_mtu(changes, UInt32(bytes))
            case .transmitQueueLength(let packets): unsafe rtnl_link_set_txqlen(changes, UInt32(packets))
            case .multicastOff: unsafe rtnl_link_unset_flags(changes, UInt32(IFF_MULTICAST))
            case .up: unsafe rtnl_link_set_flags(changes, UInt32(IFF_UP))
            }
            return unsafe rtnl_link_change(socket, current, changes, 0)
        }
    }

    /// Gives an interface an address, usable at once: without duplicate address detection, which a tunnel cannot answer.
    /// The kernel adds the route to the address' prefix.
    func addAddress(
        _ address: IPv6Address, prefixLength: Int, to link: LinkInfo, remedy: (Int32) -> String?
    ) throws(ControlError) {
        let attempt = "add the address \(address)/\(prefixLength) to \(link.name)"
        let entry = try unsafe makeAddress(address, prefixLength, of: link, attempt)
        defer { unsafe rtnl_addr_put(entry) }
        unsafe rtnl_addr_set_flags(entry, UInt32(IFA_F_NODAD))
        try exchange(attempt, remedy: remedy) { unsafe rtnl_addr_add(socket, entry, NLM_F_EXCL) }
    }

    /// Routes a prefix to an interface, with the default metric (1024).
    /// - Parameter besideOthers: the prefix may have routes of that metric over other interfaces.
    /// - Throws: EEXIST if it has one: whose it is, is not known here, so it stays.
    func addRoute(
        to prefix: IPv6Prefix, over link: LinkInfo, table: UInt32, besideOthers: Bool = false, remedy: (Int32) -> String?
    ) throws(ControlError) {
        let attempt = "add the route \(prefix) dev \(link.name)"
        let route = try unsafe makeRoute(to: prefix, table: table, attempt)
        defer { unsafe rtnl_route_put(route) }
        guard let nexthop = unsafe rtnl_route_nh_alloc() else { throw ControlError(attempt, code: ENOMEM) }
        unsafe rtnl_route_nh_set_ifindex(nexthop, link.index)
        unsafe rtnl_route_add_nexthop(route, nexthop)  // the route owns it from here on
        try exchange(attempt, remedy: remedy) { unsafe rtnl_route_add(socket, route, besideOthers ? NLM_F_APPEND : NLM_F_EXCL) }
    }

    /// Makes a nexthop object (linux/nexthop.h) of an interface that is up. The kernel removes it, and the routes over it,
    /// with the interface. libnl 3.7 has no type for these objects, so the attributes are put together here.
    /// - Parameter first: the id it gets, or the next one that is free.
    /// - Returns: its id.
    func addNexthop(over link: LinkInfo, firstID first: UInt32, remedy: (Int32) -> String?) throws(ControlError) -> UInt32 {
        let attempt = "add a nexthop object for \(link.name)"
        var id = first
        while true {
            do throws(ControlError) {
                try exchange(attempt, remedy: remedy) {
                    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
                    guard let message = unsafe nlmsg_alloc_simple(Int32(RTM_NEWNEXTHOP), flags) else { return -NLE_NOMEM }
                    var header = nhmsg()
                    header.nh_family = UInt8(AF_INET6)
                    header.nh_protocol = UInt8(RTPROT_STATIC)
                    unsafe nlmsg_append(message, &header, MemoryLayout<nhmsg>.size, Int32(NLMSG_ALIGNTO))
                    unsafe nla_put_u32(message, Int32(NHA_ID), id)
                    unsafe nla_put_u32(message, Int32(NHA_OIF), UInt32(link.index))
                    return unsafe nl_send_sync(socket, message)  // frees the message
                }
                return id
            } catch {
                guard error.code == EEXIST, id - first < 1000 else { throw error }
                id += 1
            }
        }
    }

    /// Adds an unreachable route at the lowest preference there is (metric 4294967295) over a nexthop object, in place of a
    /// route of that prefix and metric.
    ///
    /// The kernel puts an unreachable route on `lo`, whatever device was asked for, and there it outlives the tunnel
    /// (fib6_nh_init() in net/ipv6/route.c). Over a nexthop object it keeps the object's device, and goes when that goes.
    func addUnreachable(
        _ prefix: IPv6Prefix, nexthop id: UInt32, table: UInt32, remedy: (Int32) -> String?
    ) throws(ControlError) {
        let attempt = "add the unreachable route \(prefix)"
        let route = try unsafe makeRoute(to: prefix, table: table, attempt)
        defer { unsafe rtnl_route_put(route) }
        unsafe rtnl_route_set_type(route, UInt8(RTN_UNREACHABLE))
        unsafe rtnl_route_set_priority(route, .max)
        try exchange(attempt, remedy: remedy) {
            var message: OpaquePointer?
            let result = unsafe rtnl_route_build_add_request(route, NLM_F_EXCL, &message)
            if result < 0 { return result }
            unsafe nla_put_u32(message, Int32(RTA_NH_ID.rawValue), id)
            return unsafe nl_send_sync(socket, message)  // frees the message
        }
    }

    /// Takes an address away, and the kernel the route to its prefix unless another address of the interface needs it.
    func removeAddress(_ address: IPv6Address, prefixLength: Int, from link: LinkInfo) throws(ControlError) {
        let attempt = "remove the address \(address)/\(prefixLength) from \(link.name)"
        let entry = try unsafe makeAddress(address, prefixLength, of: link, attempt)
        defer { unsafe rtnl_addr_put(entry) }
        try exchange(attempt) { unsafe rtnl_addr_delete(socket, entry, 0) }
    }

    /// Takes away what `addUnreachable` added.
    func removeUnreachable(_ prefix: IPv6Prefix, table: UInt32) throws(ControlError) {
        let attempt = "remove the unreachable route \(prefix)"
        let route = try unsafe makeRoute(to: prefix, table: table, attempt)
        defer { unsafe rtnl_route_put(route) }
        unsafe rtnl_route_set_type(route, UInt8(RTN_UNREACHABLE))
        unsafe rtnl_route_set_priority(route, .max)
        try exchange(attempt) { unsafe rtnl_route_delete(socket, route, 0) }
    }

    private func makeAddress(
        _ address: IPv6Address, _ prefixLength: Int, of link: LinkInfo, _ attempt: String
    ) throws(ControlError) -> OpaquePointer {
        guard let entry = unsafe rtnl_addr_alloc() else { throw ControlError(attempt, code: ENOMEM) }
        unsafe rtnl_addr_set_ifindex(entry, link.index)
        unsafe rtnl_addr_set_family(entry, AF_INET6)
        let local = unsafe nlAddress(address, prefixLength: prefixLength)
        defer { unsafe nl_addr_put(local) }
        // Takes the prefix length along; fails only for another family.
        unsafe rtnl_addr_set_local(entry, local)
        return unsafe entry
    }

    private func makeRoute(to prefix: IPv6Prefix, table: UInt32, _ attempt: String) throws(ControlError) -> OpaquePointer {
        guard let route = unsafe rtnl_route_alloc() else { throw ControlError(attempt, code: ENOMEM) }
        let destination = unsafe nlAddress(prefix.address, prefixLength: prefix.length)
        defer { unsafe nl_addr_put(destination) }
        unsafe rtnl_route_set_dst(route, destination)  // sets the family, too
        unsafe rtnl_route_set_table(route, table)
        return unsafe route
    }
}

/// A libnl address, owned by the caller: `nl_addr_put` it.
private func nlAddress(_ address: IPv6Address, prefixLength: Int) -> OpaquePointer {
    var bytes = (address.high.bigEndian, address.low.bigEndian)
    // Fails for want of memory only.
    let result = unsafe nl_addr_build(AF_INET6, &bytes, 16)!
    unsafe nl_addr_set_prefixlen(result, Int32(prefixLength))
    return unsafe result
}
