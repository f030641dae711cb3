internal import CNetlink
internal import Glibc

/// An rtnetlink socket that hears what changes, whoever changes it. It needs no privilege.
@safe
struct NetlinkMonitor: ~Copyable {
    enum Change: Equatable, Sendable {
        /// An IPv6 route came, changed or went.
        /// - interface: nil where it has several next hops, or a nexthop object that may have changed.
        case ipv6Route(interface: Int32?)
        case ipv4Address
        case ipv4Route
        case link(index: Int32, isUp: Bool)
        /// More has changed than the socket could hold: anything may be different now.
        case overrun
    }

    enum Subject {
        /// IPv6 routes, and the links they lead over.
        case overlay
        /// IPv4 addresses and routes, and the links they belong to.
        case underlay
    }

    private let socket: OpaquePointer

    init(_ subject: Subject) throws(ControlError) {
        guard let socket = unsafe nl_socket_alloc() else { throw ControlError("open a netlink socket", code: ENOMEM) }
        let result = unsafe nl_connect(socket, NETLINK_ROUTE)
        if result < 0 {
            unsafe nl_socket_free(socket)
            throw ControlError("open a netlink socket", reason: unsafe String(cString: nl_geterror(result)))
        }
        unsafe self.socket = socket
        unsafe nl_socket_set_nonblocking(socket)
        let groups =
            switch subject {
            case .overlay: [RTNLGRP_LINK, RTNLGRP_IPV6_ROUTE, RTNLGRP_NEXTHOP]
            case .underlay: [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE]
            }
        // A kernel refuses a group that it does not know, and then has nothing to say there.
        for group in groups { unsafe nl_socket_add_membership(socket, Int32(group.rawValue)) }
    }

    deinit { unsafe nl_socket_free(socket) }

    /// Readable when something has been heard.
    var descriptor: Int32 { unsafe nl_socket_get_fd(socket) }

    /// What has been heard since the last call.
    func changes() -> [Change] {
        var changes: [Change] = []
        var buffer = [UInt32](repeating: 0, count: 1 << 14)
        while true {
            let length = unsafe buffer.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
            if length < 0 {
                if errno == ENOBUFS { changes.append(.overrun) }
                if errno == ENOBUFS || errno == EINTR { continue }
                return changes
            }
            unsafe buffer.withUnsafeMutableBytes { bytes in
                var message = unsafe bytes.baseAddress!.assumingMemoryBound(to: nlmsghdr.self)
                var rest = Int32(length)
                while unsafe nlmsg_ok(message, rest) != 0 {
                    if let change = unsafe Self.change(message) { changes.append(change) }
                    unsafe message = nlmsg_next(message, &rest)
                }
            }
        }
    }

    private static func change(_ message: UnsafeMutablePointer<nlmsghdr>) -> Change? {
        switch unsafe Int(message.pointee.nlmsg_type) {
        case RTM_NEWROUTE, RTM_DELROUTE:
            guard unsafe nlmsg_valid_hdr(message, Int32(MemoryLayout<rtmsg>.size)) != 0, let data = unsafe nlmsg_data(message)
            else { return nil }
            if unsafe Int32(data.load(as: rtmsg.self).rtm_family) == AF_INET { return .ipv4Route }
            let offset = Int32(MemoryLayout<rtmsg>.size)
            guard unsafe nlmsg_find_attr(message, offset, Int32(RTA_NH_ID.rawValue)) == nil,
                let interface = unsafe nlmsg_find_attr(message, offset, Int32(RTA_OIF.rawValue))
            else { return .ipv6Route(interface: nil) }
            return .ipv6Route(interface: Int32(bitPattern: unsafe nla_get_u32(interface)))
        case RTM_NEWNEXTHOP, RTM_DELNEXTHOP:
            return .ipv6Route(interface: nil)
        case RTM_NEWADDR, RTM_DELADDR:
            return .ipv4Address
        case RTM_NEWLINK, RTM_DELLINK:
            guard unsafe nlmsg_valid_hdr(message, Int32(MemoryLayout<ifinfomsg>.size)) != 0,
                let link = unsafe nlmsg_data(message)?.load(as: ifinfomsg.self)
            else { return nil }
            return .link(index: link.ifi_index, isUp: link.ifi_flags & UInt32(IFF_UP) != 0)
        default:
            return nil
        }
    }
}
