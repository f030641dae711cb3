internal import CLinux
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
    /// `tun`, `veth`, `vrf`, ... (IFLA_INFO_KIND); empty for hardware.
    var kind = ""
    /// The routing table that a VRF stands for (net/l3mdev).
    var vrfTable: UInt32?

    var isUp: Bool { flags & UInt32(IFF_UP) != 0 }
    var isLoopback: Bool { flags & UInt32(IFF_LOOPBACK) != 0 }
    var isVRF: Bool { kind == "vrf" }
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
        // A dump that a change interrupted libnl asks for again.
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

    /// By its name or an alternative one (`ip link property add altname`); nil: there is none.
    func link(named name: String) throws(ControlError) -> LinkInfo? {
        let attempt = "look up the interface \(name)"
        switch name.utf8.count {
        case 0: return nil
        // IFNAMSIZ is 16, with the final zero. The kernel looks for alternative names, too.
        case 1..<16: return try link(index: 0, name: name, attempt)
        default:
            guard let index = try index(ofAlternativeName: name, attempt) else { return nil }
            return try link(index: index, name: nil, attempt)
        }
    }

    /// nil: there is none of this index.
    func link(index: Int32) throws(ControlError) -> LinkInfo? {
        index > 0 ? try link(index: index, name: nil, "look up the interface of index \(index)") : nil
    }

    private func link(index: Int32, name: String?, _ attempt: String) throws(ControlError) -> LinkInfo? {
        try unsafe link(index: index, name: name, attempt) { unsafe LinkInfo(of: $0) }
    }

    /// Whether the kernel makes IPv6 addresses of its own for an interface (IFLA_INET6_ADDR_GEN_MODE); nil: it has no IPv6 there.
    func generatesAddresses(_ index: Int32) throws(ControlError) -> Bool? {
        let mode = try unsafe link(index: index, name: nil, "look up the interface of index \(index)") { link -> UInt8? in
            var mode: UInt8 = 0
            return unsafe rtnl_link_inet6_get_addr_gen_mode(link, &mode) == 0 ? mode : nil
        }
        return mode.flatMap { $0 }.map { $0 != UInt8(IN6_ADDR_GEN_MODE_NONE.rawValue) }
    }

    private func link<Result>(
        index: Int32, name: String?, _ attempt: String, _ make: (OpaquePointer) -> Result
    ) throws(ControlError) -> Result? {
        var link: OpaquePointer?
        do throws(ControlError) {
            try exchange(attempt) { unsafe rtnl_link_get_kernel(socket, index, name, &link) }
        } catch {
            if error.code == ENODEV { return nil }
            throw error
        }
        guard let link = unsafe link else { return nil }
        defer { unsafe rtnl_link_put(link) }
        return unsafe make(link)
    }

    /// libnl 3.7 does not know alternative names, which may have 127 bytes (Linux 5.5).
    private func index(ofAlternativeName name: String, _ attempt: String) throws(ControlError) -> Int32? {
        var index: Int32 = 0
        do throws(ControlError) {
            try exchange(attempt) {
                guard let message = unsafe nlmsg_alloc_simple(Int32(RTM_GETLINK), 0) else { return -NLE_NOMEM }
                defer { unsafe nlmsg_free(message) }
                var header = ifinfomsg()
                unsafe nlmsg_append(message, &header, MemoryLayout<ifinfomsg>.size, Int32(NLMSG_ALIGNTO))
                unsafe nla_put_string(message, Int32(IFLA_ALT_IFNAME), name)
                let received = unsafe ask(message, keepLinkIndex, &index)
                return received < 0 ? received : unsafe nl_wait_for_ack(socket)
            }
        } catch {
            if let code = error.code, [ENODEV, EINVAL, ERANGE].contains(code) { return nil }
            throw error
        }
        return index > 0 ? index : nil
    }
}

/// Keeps the index of the link in an answer; the argument points to where.
private let keepLinkIndex: nl_recvmsg_msg_cb_t = { message, argument in
    guard let header = unsafe nlmsg_hdr(message), unsafe nlmsg_valid_hdr(header, Int32(MemoryLayout<ifinfomsg>.size)) != 0,
        let data = unsafe nlmsg_data(header)
    else { return Int32(NL_OK.rawValue) }
    unsafe argument!.storeBytes(of: data.load(as: ifinfomsg.self).ifi_index, as: Int32.self)
    return Int32(NL_OK.rawValue)
}

extension LinkInfo {
    fileprivate init(of link: OpaquePointer) {
        unsafe index = rtnl_link_get_ifindex(link)
        name = unsafe rtnl_link_get_name(link).map { unsafe String(cString: $0) } ?? ""
        mtu = unsafe Int(rtnl_link_get_mtu(link))
        unsafe flags = rtnl_link_get_flags(link)
        unsafe master = rtnl_link_get_master(link)
        kind = unsafe rtnl_link_get_type(link).map { unsafe String(cString: $0) } ?? ""
        if kind == "vrf" {
            var table: UInt32 = 0
            if unsafe rtnl_link_vrf_get_tableid(link, &table) == 0 { vrfTable = table }
        }
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
