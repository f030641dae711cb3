internal import CLinux
internal import CNetlink
internal import Glibc

/// One rtnetlink socket: asks the kernel about links, addresses and routes, and changes them. Every call waits for the
/// kernel's answer. Reading needs no privilege, writing needs CAP_NET_ADMIN.
///
/// The error codes of libnl are fewer than the kernel's ("Unspecific failure" for EHOSTUNREACH) and it drops the text of
/// extended acknowledgements, so a callback keeps both.
@safe
struct Netlink: ~Copyable {
    let socket: OpaquePointer
    private let refusal: UnsafeMutablePointer<Refusal?>

    /// What the kernel answered to a request that it refused.
    struct Refusal {
        /// errno
        let code: Int32
        /// NLMSGERR_ATTR_MSG: one line that says more than the errno.
        let message: String?
    }

    init() throws(ControlError) {
        guard let socket = unsafe nl_socket_alloc() else { throw ControlError("open a netlink socket", code: ENOMEM) }
        let result = unsafe nl_connect(socket, NETLINK_ROUTE)
        if result < 0 {
            unsafe nl_socket_free(socket)
            throw ControlError("open a netlink socket", reason: unsafe String(cString: nl_geterror(result)))
        }
        unsafe self.socket = socket
        unsafe refusal = .allocate(capacity: 1)
        unsafe refusal.initialize(to: nil)
        unsafe nl_socket_modify_err_cb(socket, NL_CB_CUSTOM, keepRefusal, refusal)
        // Kernels before 4.12 know neither option: reasons are shorter then.
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK] { setOption(option, to: 1) }
    }

    /// Kernels that do not know the option go without.
    func setOption(_ option: Int32, to value: Int32) {
        var value = value
        _ = unsafe setsockopt(nl_socket_get_fd(socket), SOL_NETLINK, option, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    deinit {
        unsafe nl_socket_free(socket)
        unsafe refusal.deinitialize(count: 1)
        unsafe refusal.deallocate()
    }

    /// Runs one exchange with the kernel.
    /// - Parameters:
    ///   - attempt: what it is for, as `ControlError.attempt`.
    ///   - remedy: what helps against an errno; nil for "unknown".
    ///   - body: the libnl call; returns what that returns (negative: failed).
    func exchange(
        _ attempt: String, remedy: (Int32) -> String? = { _ in nil }, _ body: () -> Int32
    ) throws(ControlError) {
        unsafe refusal.pointee = nil
        let result = body()
        if result >= 0 { return }
        guard let refused = unsafe refusal.pointee else {
            // libnl's own trouble, or a call that puts its own error callback in front of ours (rtnl_link_get_kernel).
            let text = unsafe String(cString: nl_geterror(result))
            throw ControlError(attempt, reason: text, code: Self.code(ofLibraryError: result))
        }
        let plain = ControlError(attempt, code: refused.code, remedy: remedy(refused.code))
        guard let message = refused.message else { throw plain }
        throw ControlError(attempt, reason: "\(plain.reason): \(message)", remedy: plain.remedy, code: plain.code)
    }

    /// The errno that libnl translated to its own code, for those that callers tell apart.
    private static func code(ofLibraryError result: Int32) -> Int32? {
        switch -result {
        case NLE_NODEV, NLE_OBJ_NOTFOUND: ENODEV
        case NLE_PERM: EPERM
        default: nil
        }
    }
}

/// The error callback: notes the errno and the text of the extended acknowledgement, and ends the exchange as libnl would.
///
/// The answer is `nlmsghdr | error | the request's nlmsghdr [| its payload] | attributes`; the payload is there unless
/// NLM_F_CAPPED, the attributes if NLM_F_ACK_TLVS (netlink_ack() in net/netlink/af_netlink.c).
private let keepRefusal: nl_recvmsg_err_cb_t = { _, answer, argument in
    guard let answer = unsafe answer,
        let refusal = unsafe argument?.assumingMemoryBound(to: Netlink.Refusal?.self)
    else { return Int32(bitPattern: NL_STOP.rawValue) }
    // libnl hands over a pointer into the whole datagram it received, of which the header comes first.
    let start = unsafe UnsafeMutableRawPointer(answer) - MemoryLayout<nlmsghdr>.size
    let header = unsafe start.assumingMemoryBound(to: nlmsghdr.self)
    let flags = unsafe Int32(header.pointee.nlmsg_flags)
    var message: String?
    if flags & NLM_F_ACK_TLVS != 0 {
        var attributes = MemoryLayout<nlmsgerr>.size
        if flags & NLM_F_CAPPED == 0 {
            attributes += unsafe Int(answer.pointee.msg.nlmsg_len) - MemoryLayout<nlmsghdr>.size
        }
        let text = unsafe nlmsg_find_attr(header, Int32(attributes), Int32(NLMSGERR_ATTR_MSG.rawValue))
        if let text = unsafe text, let characters = unsafe nla_get_string(text) {
            message = unsafe String(cString: characters)
        }
    }
    unsafe refusal.pointee = Netlink.Refusal(code: -answer.pointee.error, message: message)
    return Int32(bitPattern: NL_STOP.rawValue)
}
