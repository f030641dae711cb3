internal import CLinux
internal import CNetlink
internal import Glibc

/// An rtnetlink socket that hears what changes, whoever changes it. It needs no privilege.
@safe
struct NetlinkMonitor: ~Copyable {
    enum Change: Equatable, Sendable {
        case link(index: Int32)
        case ipv6Address(interface: Int32)
        /// An IPv6 route came, changed or went; which of them are heard, `hearRoutes` says.
        case ipv6Route
        /// A nexthop object.
        /// - interface: nil for a group and for a black hole.
        /// - members: of a group, by id.
        case nexthop(id: UInt32, interface: Int32?, members: [UInt32])
        case underlay
        /// More has changed than the socket could hold: anything may be different now.
        case overrun
    }

    enum Subject {
        /// The TUN: links, IPv6 addresses and routes, nexthop objects.
        case overlay
        /// Links, IPv4 addresses, routes and rules.
        case underlay
    }

    private let subject: Subject
    private let socket: OpaquePointer

    init(_ subject: Subject) throws(ControlError) {
        guard let socket = unsafe nl_socket_alloc() else { throw ControlError("open a netlink socket", code: ENOMEM) }
        let result = unsafe nl_connect(socket, NETLINK_ROUTE)
        if result < 0 {
            unsafe nl_socket_free(socket)
            throw ControlError("open a netlink socket", reason: unsafe String(cString: nl_geterror(result)))
        }
        unsafe self.socket = socket
        self.subject = subject
        unsafe nl_socket_set_nonblocking(socket)
        let groups =
            switch subject {
            case .overlay:
                [RTNLGRP_LINK, RTNLGRP_IPV6_IFINFO, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_NEXTHOP]
            case .underlay: [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE]
            }
        // A kernel refuses a group that it does not know, and then has nothing to say there.
        for group in groups { unsafe nl_socket_add_membership(socket, Int32(group.rawValue)) }
    }

    deinit { unsafe nl_socket_free(socket) }

    /// Readable when something has been heard.
    var descriptor: Int32 { unsafe nl_socket_get_fd(socket) }

    /// Of the messages about IPv6 routes, only those about routes over one interface reach the socket, and those that do not say
    /// where they lead. A host may have a hundred thousand other routes, which come and go.
    func hearRoutes(over interface: Int32) {
        func statement(_ code: Int32, _ value: UInt32) -> sock_filter {
            sock_filter(code: UInt16(truncatingIfNeeded: code), jt: 0, jf: 0, k: value)
        }
        func jump(ifEqual value: UInt32, _ yes: UInt8, else no: UInt8) -> sock_filter {
            sock_filter(code: UInt16(truncatingIfNeeded: BPF_JMP | BPF_JEQ | BPF_K), jt: yes, jf: no, k: value)
        }
        // Loads are in network byte order, netlink's numbers in the machine's.
        func type(_ type: Int) -> UInt32 { UInt32(UInt16(type).bigEndian) }
        /// A = where the attribute is, or 0 (SKF_AD_NLATTR).
        func find(_ attribute: rtattr_type_t) -> [sock_filter] {
            [
                statement(BPF_LD | BPF_IMM, UInt32(MemoryLayout<nlmsghdr>.size + MemoryLayout<rtmsg>.size)),
                statement(BPF_LDX | BPF_IMM, attribute.rawValue),
                statement(BPF_LD | BPF_B | BPF_ABS, UInt32(bitPattern: Int32(SKF_AD_OFF + SKF_AD_NLATTR))),
            ]
        }
        let accept = statement(BPF_RET | BPF_K, .max)
        let drop = statement(BPF_RET | BPF_K, 0)
        var program = [
            statement(BPF_LD | BPF_H | BPF_ABS, 4),  // nlmsg_type
            jump(ifEqual: type(RTM_NEWROUTE), 2, else: 0),
            jump(ifEqual: type(RTM_DELROUTE), 1, else: 0),
            accept,
        ]
        program += find(RTA_OIF)
        program += [
            jump(ifEqual: 0, 5, else: 0),
            statement(BPF_MISC | BPF_TAX, 0),
            statement(BPF_LD | BPF_W | BPF_IND, 4),  // behind the attribute's header
            jump(ifEqual: UInt32(bitPattern: interface).bigEndian, 0, else: 1),
            accept, drop,
        ]
        // Several next hops are not looked through. A nexthop object whose device is not told is none to follow.
        program += find(RTA_MULTIPATH)
        program += [jump(ifEqual: 0, 1, else: 0), accept]
        program += find(RTA_NH_ID)
        program += [jump(ifEqual: 0, 0, else: 1), accept, drop]
        unsafe program.withUnsafeMutableBufferPointer { instructions in
            var filter = unsafe sock_fprog(len: UInt16(instructions.count), filter: instructions.baseAddress)
            // Without it there is more to read, and nothing is missed.
            _ = unsafe setsockopt(
                descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &filter, socklen_t(MemoryLayout<sock_fprog>.size))
        }
    }

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
                    if let change = unsafe change(message), changes.last != change { changes.append(change) }
                    unsafe message = nlmsg_next(message, &rest)
                }
            }
        }
    }

    private func change(_ message: UnsafeMutablePointer<nlmsghdr>) -> Change? {
        let type = unsafe Int(message.pointee.nlmsg_type)
        if type == NLMSG_NOOP || type == NLMSG_DONE { return nil }
        if subject == .underlay { return .underlay }
        switch type {
        case RTM_NEWROUTE, RTM_DELROUTE:
            return .ipv6Route
        case RTM_NEWNEXTHOP, RTM_DELNEXTHOP:
            let start = Int32(MemoryLayout<nhmsg>.size)
            guard let id = unsafe nlmsg_find_attr(message, start, Int32(NHA_ID)) else { return nil }
            var members: [UInt32] = []
            if let group = unsafe nlmsg_find_attr(message, start, Int32(NHA_GROUP)), let first = unsafe nla_data(group) {
                let stride = MemoryLayout<nexthop_grp>.stride
                for offset in Swift.stride(from: 0, to: Int(unsafe nla_len(group)), by: stride) {
                    members.append(unsafe first.load(fromByteOffset: offset, as: nexthop_grp.self).id)
                }
            }
            let interface = unsafe nlmsg_find_attr(message, start, Int32(NHA_OIF)).map { unsafe nla_get_u32($0) }
            return .nexthop(id: unsafe nla_get_u32(id), interface: interface.map(Int32.init(bitPattern:)), members: members)
        case RTM_NEWADDR, RTM_DELADDR:
            guard unsafe nlmsg_valid_hdr(message, Int32(MemoryLayout<ifaddrmsg>.size)) != 0,
                let address = unsafe nlmsg_data(message)?.load(as: ifaddrmsg.self)
            else { return nil }
            return .ipv6Address(interface: Int32(bitPattern: address.ifa_index))
        case RTM_NEWLINK, RTM_DELLINK:
            guard unsafe nlmsg_valid_hdr(message, Int32(MemoryLayout<ifinfomsg>.size)) != 0,
                let link = unsafe nlmsg_data(message)?.load(as: ifinfomsg.self)
            else { return nil }
            return .link(index: link.ifi_index)
        default:
            return nil
        }
    }
}
