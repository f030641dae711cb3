internal import CLinux
internal import CNetlink
internal import Glibc
internal import TunnelCore

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

extension Netlink {
    /// The IPv4 addresses of all interfaces, in the kernel's order: a subnet's primary address comes before its secondaries.
    func ipv4Addresses() throws(ControlError) -> [InterfaceAddress] {
        try unsafe addresses(AF_INET, "list the IPv4 addresses") { entry in
            guard let address = unsafe IPv4Address(of: rtnl_addr_get_local(entry)) else { return nil }
            return InterfaceAddress(
                address: address,
                prefixLength: unsafe Int(rtnl_addr_get_prefixlen(entry)),
                interfaceIndex: unsafe rtnl_addr_get_ifindex(entry),
                isGlobalScope: unsafe rtnl_addr_get_scope(entry) == Int32(RT_SCOPE_UNIVERSE.rawValue),
                broadcast: unsafe IPv4Address(of: rtnl_addr_get_broadcast(entry)))
        }
    }

    /// The IPv6 addresses of one interface, and for each whether the kernel made it up (IFA_F_STABLE_PRIVACY, which nobody else can
    /// set; an interface without hardware address gets no other kind, net/ipv6/addrconf.c `addrconf_dev_config`).
    func ipv6Addresses(
        of interface: Int32
    ) throws(ControlError) -> [(address: TunLinkPlan.Address, isKernelMade: Bool)] {
        try unsafe addresses(AF_INET6, "list the IPv6 addresses") { entry in
            guard unsafe rtnl_addr_get_ifindex(entry) == interface,
                let address = unsafe IPv6Address(of: rtnl_addr_get_local(entry))
            else { return nil }
            let found = TunLinkPlan.Address(address: address, prefixLength: unsafe Int(rtnl_addr_get_prefixlen(entry)))
            return (found, unsafe rtnl_addr_get_flags(entry) & UInt32(IFA_F_STABLE_PRIVACY) != 0)
        }
    }

    private func addresses<Result>(
        _ family: Int32, _ attempt: String, _ make: (OpaquePointer) -> Result?
    ) throws(ControlError) -> [Result] {
        var cache: OpaquePointer?
        // A dump that a change interrupted libnl asks for again.
        try exchange(attempt) { unsafe rtnl_addr_alloc_cache(socket, &cache) }
        defer { unsafe nl_cache_free(cache) }
        var addresses: [Result] = []
        var object = unsafe nl_cache_get_first(cache)
        while let entry = unsafe object {
            unsafe object = nl_cache_get_next(entry)
            // The cache holds both families.
            if unsafe rtnl_addr_get_family(entry) == family, let result = unsafe make(entry) { addresses.append(result) }
        }
        return addresses
    }
}

extension IPv4Address {
    /// nil for a null pointer and for other families.
    init?(of address: OpaquePointer?) {
        guard let address = unsafe address, unsafe nl_addr_get_len(address) == 4,
            let bytes = unsafe nl_addr_get_binary_addr(address)
        else { return nil }
        self.init(rawValue: UInt32(bigEndian: unsafe bytes.loadUnaligned(as: UInt32.self)))
    }
}

extension IPv6Address {
    /// nil for a null pointer and for other families.
    init?(of address: OpaquePointer?) {
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
    init?(of address: OpaquePointer?) {
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
