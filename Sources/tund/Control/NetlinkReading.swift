internal import CNetlink
internal import Glibc
internal import TunnelCore

/// A network interface.
struct LinkInfo: Equatable, Sendable {
    let index: Int32
    let name: String
    /// bytes
    let mtu: Int
    /// IFF_*
    let flags: UInt32
    /// The index of the bridge, bond or VRF that it is part of; 0: none.
    var master: Int32 = 0
    /// It stands for a routing table of its own (net/l3mdev).
    var isVRF = false

    var isUp: Bool { flags & UInt32(IFF_UP) != 0 }
    var isLoopback: Bool { flags & UInt32(IFF_LOOPBACK) != 0 }
}

/// An IPv4 address that an interface has.
struct InterfaceAddress: Equatable, Sendable {
    let address: IPv4Address
    /// Of the subnet that the address puts on the link; with a peer address, of the peer's.
    let prefixLength: Int
    let interfaceIndex: Int32
    /// RT_SCOPE_UNIVERSE: valid beyond the link and the host.
    let isGlobalScope: Bool
    /// IFA_BROADCAST; nil if none was set.
    let broadcast: IPv4Address?
}

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
    /// The route's `mtu` metric or, if smaller, the path MTU the kernel has learnt for the destination, bytes; nil: only the
    /// interface's MTU limits.
    let mtu: Int?
    let type: Kind
}

extension Netlink {
    /// All interfaces, in the kernel's order.
    func links() throws(ControlError) -> [LinkInfo] {
        try unsafe links { unsafe LinkInfo(of: $0) }
    }

    /// The kernel's own tunnels that take protocol 41 or 4.
    func kernelTunnels() throws(ControlError) -> [KernelTunnel] {
        try unsafe links { unsafe KernelTunnel(of: $0) }
    }

    private func links<Result>(_ make: (OpaquePointer) -> Result?) throws(ControlError) -> [Result] {
        var cache: OpaquePointer?
        try exchange("list the network interfaces") {
            unsafe rtnl_link_alloc_cache(socket, AF_UNSPEC, &cache)
        }
        defer { unsafe nl_cache_free(cache) }
        var links: [Result] = []
        var object = unsafe nl_cache_get_first(cache)
        while let link = unsafe object {
            if let result = unsafe make(link) { links.append(result) }
            unsafe object = nl_cache_get_next(link)
        }
        return links
    }

    /// nil: there is none of this name.
    func link(named name: String) throws(ControlError) -> LinkInfo? {
        // IFNAMSIZ is 16, with the final zero; the kernel answers ERANGE to a longer name.
        guard !name.isEmpty, name.utf8.count < 16 else { return nil }
        return try link(index: 0, name: name, "look up the interface \(name)")
    }

    /// nil: there is none of this index.
    func link(index: Int32) throws(ControlError) -> LinkInfo? {
        index > 0 ? try link(index: index, name: nil, "look up the interface of index \(index)") : nil
    }

    private func link(index: Int32, name: String?, _ attempt: String) throws(ControlError) -> LinkInfo? {
        var link: OpaquePointer?
        do throws(ControlError) {
            try exchange(attempt) { unsafe rtnl_link_get_kernel(socket, index, name, &link) }
        } catch {
            if error.code == ENODEV { return nil }
            throw error
        }
        guard let link = unsafe link else { return nil }
        defer { unsafe rtnl_link_put(link) }
        return unsafe LinkInfo(of: link)
    }

    /// The IPv4 addresses of all interfaces, in the kernel's order: a subnet's primary address comes before its secondaries.
    func ipv4Addresses() throws(ControlError) -> [InterfaceAddress] {
        var cache: OpaquePointer?
        try exchange("list the IPv4 addresses") { unsafe rtnl_addr_alloc_cache(socket, &cache) }
        defer { unsafe nl_cache_free(cache) }
        var addresses: [InterfaceAddress] = []
        var object = unsafe nl_cache_get_first(cache)
        while let entry = unsafe object {
            unsafe object = nl_cache_get_next(entry)
            // The cache holds both families.
            guard unsafe rtnl_addr_get_family(entry) == AF_INET,
                let address = unsafe IPv4Address(of: rtnl_addr_get_local(entry))
            else { continue }
            addresses.append(
                InterfaceAddress(
                    address: address,
                    prefixLength: unsafe Int(rtnl_addr_get_prefixlen(entry)),
                    interfaceIndex: unsafe rtnl_addr_get_ifindex(entry),
                    isGlobalScope: unsafe rtnl_addr_get_scope(entry) == Int32(RT_SCOPE_UNIVERSE.rawValue),
                    broadcast: unsafe IPv4Address(of: rtnl_addr_get_broadcast(entry))))
        }
        return addresses
    }

    /// The kernel's own lookup, with its rules and tables, for a packet that this host sends; nil: unreachable.
    /// - Parameters:
    ///   - device: the index of the interface, or VRF, that the sending socket is bound to.
    ///   - mark: the sending socket's SO_MARK.
    func ipv4Route(to destination: IPv4Address, device: Int32?, mark: UInt32) throws(ControlError) -> Route4? {
        var result: OpaquePointer?
        do throws(ControlError) {
            // rtnl_route_lookup() knows neither device nor mark.
            try exchange("look up the route to \(destination)") {
                guard let message = unsafe nlmsg_alloc_simple(Int32(RTM_GETROUTE), 0) else { return -NLE_NOMEM }
                defer { unsafe nlmsg_free(message) }
                var header = rtmsg()
                header.rtm_family = UInt8(AF_INET)
                header.rtm_dst_len = 32
                unsafe nlmsg_append(message, &header, MemoryLayout<rtmsg>.size, Int32(NLMSG_ALIGNTO))
                unsafe nla_put_u32(message, Int32(RTA_DST.rawValue), destination.rawValue.bigEndian)
                if let device { unsafe nla_put_u32(message, Int32(RTA_OIF.rawValue), UInt32(device)) }
                if mark != 0 { unsafe nla_put_u32(message, Int32(RTA_MARK.rawValue), mark) }
                let received = unsafe withUnsafeMutablePointer(to: &result) { unsafe ask(message, keepRoute, $0) }
                return received < 0 ? received : unsafe nl_wait_for_ack(socket)
            }
        } catch {
            // No route; or an unreachable, prohibit or blackhole one, in this order.
            if let code = error.code, [ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL].contains(code) { return nil }
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
    private func ask(
        _ message: OpaquePointer, _ take: nl_recvmsg_msg_cb_t, _ argument: UnsafeMutableRawPointer
    ) -> Int32 {
        guard let ours = unsafe nl_socket_get_cb(socket), let callbacks = unsafe nl_cb_clone(ours) else { return -NLE_NOMEM }
        defer {
            unsafe nl_cb_put(callbacks)
            unsafe nl_cb_put(ours)
        }
        unsafe nl_cb_set(callbacks, NL_CB_VALID, NL_CB_CUSTOM, take, argument)
        let sent = unsafe nl_send_auto(socket, message)
        return sent < 0 ? sent : unsafe nl_recvmsgs(socket, callbacks)
    }

    /// The unicast routes over an interface, of every table, in the kernel's order. Routes that hold for some sources only
    /// are left out.
    func ipv6Routes(over interface: Int32) throws(ControlError) -> [Route6] {
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
        try exchange(attempt) {
            let result = unsafe ask(message, keepRoutes, Unmanaged.passUnretained(dump).toOpaque())
            // Something changed meanwhile: whoever needs to know hears of that, too.
            return result == -NLE_DUMP_INTR ? 0 : result
        }
        return dump.routes
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

    init(interface: Int32) { self.interface = interface }

    func add(_ message: UnsafeMutablePointer<nlmsghdr>?) {
        var parsed: OpaquePointer?
        guard unsafe rtnl_route_parse(message, &parsed) >= 0, let route = unsafe parsed else { return }
        defer { unsafe rtnl_route_put(route) }
        guard unsafe rtnl_route_get_family(route) == AF_INET6, unsafe Int(rtnl_route_get_type(route)) == RTN_UNICAST,
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
        if gateways.isEmpty { return }
        routes.append(
            Route6(
                prefix: prefix, isInMainTable: unsafe rtnl_route_get_table(route) == UInt32(RT_TABLE_MAIN.rawValue),
                metric: unsafe rtnl_route_get_priority(route),
                gateways: gateways))
    }
}

extension LinkInfo {
    fileprivate init(of link: OpaquePointer) {
        unsafe index = rtnl_link_get_ifindex(link)
        name = unsafe rtnl_link_get_name(link).map { unsafe String(cString: $0) } ?? ""
        mtu = unsafe Int(rtnl_link_get_mtu(link))
        unsafe flags = rtnl_link_get_flags(link)
        unsafe master = rtnl_link_get_master(link)
        isVRF = unsafe rtnl_link_get_type(link).map { unsafe strcmp($0, "vrf") == 0 } ?? false
    }
}

extension KernelTunnel {
    /// nil: something else.
    fileprivate init?(of link: OpaquePointer) {
        let mode: TunnelMode
        let (local, remote, device): (UInt32, UInt32, UInt32)
        if unsafe rtnl_link_is_sit(link) != 0 {
            switch unsafe Int(rtnl_link_sit_get_proto(link)) {
            case 0: mode = .any
            case IPPROTO_IPV6: mode = .ip6ip
            case IPPROTO_IPIP: mode = .ipip
            default: return nil
            }
            local = unsafe rtnl_link_sit_get_local(link)
            remote = unsafe rtnl_link_sit_get_remote(link)
            device = unsafe rtnl_link_sit_get_link(link)
        } else if unsafe rtnl_link_is_ipip(link) != 0 {
            mode = .ipip
            local = unsafe rtnl_link_ipip_get_local(link)
            remote = unsafe rtnl_link_ipip_get_remote(link)
            device = unsafe rtnl_link_ipip_get_link(link)
        } else {
            return nil
        }
        let info = unsafe LinkInfo(of: link)
        self.init(
            name: info.name, isUp: info.isUp, mode: mode, local: IPv4Address(rawValue: UInt32(bigEndian: local)),
            remote: IPv4Address(rawValue: UInt32(bigEndian: remote)), device: Int32(bitPattern: device))
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

extension IPv4Address {
    /// nil for a null pointer and for other families.
    fileprivate init?(of address: OpaquePointer?) {
        guard let address = unsafe address, unsafe nl_addr_get_len(address) == 4,
            let bytes = unsafe nl_addr_get_binary_addr(address)
        else { return nil }
        self.init(rawValue: UInt32(bigEndian: unsafe bytes.loadUnaligned(as: UInt32.self)))
    }
}

extension IPv6Address {
    /// nil for a null pointer and for other families.
    fileprivate init?(of address: OpaquePointer?) {
        guard let address = unsafe address, unsafe nl_addr_get_len(address) == 16,
            let bytes = unsafe nl_addr_get_binary_addr(address)
        else { return nil }
        self.init(
            high: UInt64(bigEndian: unsafe bytes.loadUnaligned(as: UInt64.self)),
            low: UInt64(bigEndian: unsafe bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }
}

extension IPv6Prefix {
    /// A default route's destination is there, with no bytes and no length.
    fileprivate init?(of address: OpaquePointer?) {
        guard let address = unsafe address else { return nil }
        let length = unsafe Int(nl_addr_get_prefixlen(address))
        if length == 0 {
            self.init(masking: .unspecified, length: 0)
        } else if let address = unsafe IPv6Address(of: address) {
            self.init(masking: address, length: length)
        } else {
            return nil
        }
    }
}

/// Keeps the route of an answer; the argument points to where.
private let keepRoute: nl_recvmsg_msg_cb_t = { message, argument in
    unsafe rtnl_route_parse(nlmsg_hdr(message), argument?.assumingMemoryBound(to: OpaquePointer?.self))
}
