internal import CLinux
internal import Glibc

/// What of root's power the process needs and when it lets go of it.
///
/// Capabilities belong to threads and are inherited by the threads they start, so all of this runs while the process has one
/// thread: `require`, `reduce(to:)`, then everything that is opened and set up, `become`, `dropAll(but:)`, and then the workers. Unless
/// `--no-restore` is given, the control thread keeps CAP_NET_ADMIN, for what others take from the TUN is put back; a thread that has
/// given up everything starts the workers then.
enum Privileges {
    /// CAP_NET_ADMIN: the TUN device, its addresses and routes, SO_MARK, SO_RCVBUFFORCE. CAP_NET_RAW: protocol 41.
    /// CAP_SYS_ADMIN: only to enter another network namespace. CAP_SETUID, CAP_SETGID: only to become another user.
    static func needed(by configuration: TunnelConfiguration) -> [cap_value_t] {
        let entersNamespace = configuration.underlayNamespace != nil
        let changesUser = configuration.user.map { !$0.isThisProcess } ?? false
        return [CAP_NET_ADMIN, CAP_NET_RAW] + (entersNamespace ? [CAP_SYS_ADMIN] : [])
            + (changesUser ? [CAP_SETUID, CAP_SETGID] : [])
    }

    /// What it also keeps until everything is open, where it has it. CAP_CHOWN: sockets go along with who becomes another user.
    static func wishes(of configuration: TunnelConfiguration) throws(ControlError) -> [cap_value_t] {
        guard let user = configuration.user, !user.isThisProcess else { return [] }
        return try isEffective(CAP_CHOWN) ? [CAP_CHOWN] : []
    }

    /// Of linux/prctl.h, which Glibc's module leaves out: PR_SET_KEEPCAPS and PR_SET_NO_NEW_PRIVS.
    private static let (keepCapabilities, noNewPrivileges) = (8, 38)

    /// What the operator should know of the user that the process will be.
    static func warnings(asUser user: UserIdentity?) -> [String] {
        if user != nil || geteuid() != 0 { return [] }
        return [
            """
            the process stays uid 0: without capabilities, too, that owns root's files (--user NAME makes it another user once \
            everything is open)
            """
        ]
    }

    /// - Throws: if one of them is not in force.
    static func require(_ needed: [cap_value_t]) throws(ControlError) {
        var missing: [cap_value_t] = []
        for capability in needed where try !isEffective(capability) { missing.append(capability) }
        if missing.isEmpty { return }
        // CAP_BPF is a wish: without it merged UDP suffers.
        let names = (needed + [CAP_BPF]).map(name(of:))
        throw ControlError(
            "run a tunnel", reason: "needs \(missing.map(name(of:)).joined(separator: " and "))",
            remedy: """
                run it with sudo, or once: setcap \(names.joined(separator: ",").lowercased())+ep \(executable), or in a systemd unit: \
                AmbientCapabilities=\(names.joined(separator: " "))
                """)
    }

    /// Keeps what is needed, in the permitted and effective sets, and gives everything else up for good: the other capabilities, the
    /// inheritable, ambient and bounding sets, and what an exec of a set-uid program or by uid 0 would bring
    /// (PR_SET_NO_NEW_PRIVS). CAP_IPC_LOCK goes, too: registered buffers count against RLIMIT_MEMLOCK from here on.
    static func reduce(to needed: [cap_value_t]) throws(ControlError) {
        // The bounding set takes CAP_SETPCAP, which a process with the needed ones alone does not have. It then keeps its bounding
        // set, which PR_SET_NO_NEW_PRIVS makes harmless.
        if try isEffective(CAP_SETPCAP) {
            for capability in 0..<cap_max_bits() where cap_drop_bound(capability) != 0 {
                throw ControlError("\(attempt) (bounding set)", code: errno)
            }
        }
        // Kernels before 4.3 have no ambient set, and nothing to reset then.
        if cap_reset_ambient() != 0, errno != EINVAL { throw ControlError("\(attempt) (ambient set)", code: errno) }
        if cap_prctl(noNewPrivileges, 1, 0, 0, 0, 0) != 0 {
            throw ControlError("\(attempt) (no_new_privs)", code: errno)
        }
        try setAll(to: needed, attempt)
    }

    /// Makes the process another user, in that group only. The permitted capabilities stay, for `dropAll(but:)` to choose from; the
    /// effective ones are gone until then. No thread can come back: saved ids are the same, and CAP_SETUID goes next.
    ///
    /// The kernel makes such a process undumpable, so that nobody else of that user reads its memory. It stays so.
    ///
    /// - Parameter sockets: become that user's, as far as CAP_CHOWN or the kernel let them.
    static func become(_ user: UserIdentity, takingAlong sockets: [Int32] = []) throws(ControlError) {
        if user.isThisProcess { return }
        for socket in sockets { _ = fchown(socket, user.uid, user.gid) }
        let attempt = "become the user \(user)"
        func check(_ result: Int32, _ capability: String, _ call: String) throws(ControlError) {
            if result == 0 { return }
            let code = errno
            let remedy: String? =
                switch code {
                case EPERM: "needs \(capability), and in a user namespace that /proc/self/setgroups says allow"
                case EINVAL: "this user namespace has no such id: see /proc/self/uid_map and gid_map"
                case EAGAIN: "that user has too many processes: raise ulimit -u, or LimitNPROC= of the unit"
                default: nil
                }
            throw ControlError("\(attempt) (\(call))", code: code, remedy: remedy)
        }
        // Groups first: as another user it may not.
        try check(setgroups(0, nil), "CAP_SETGID", "setgroups")
        try check(setresgid(user.gid, user.gid, user.gid), "CAP_SETGID", "setresgid")
        try check(cap_prctl(keepCapabilities, 1, 0, 0, 0, 0), "CAP_SETUID", "keep_caps")
        try check(setresuid(user.uid, user.uid, user.uid), "CAP_SETUID", "setresuid")
        try check(cap_prctl(keepCapabilities, 0, 0, 0, 0, 0), "CAP_SETUID", "keep_caps")
        guard user.isThisProcess else { throw ControlError(attempt, reason: "the kernel did as if, but it is still another one") }
    }

    /// Gives those up as well. Open descriptors keep working.
    static func dropAll(but kept: [cap_value_t]) throws(ControlError) { try setAll(to: kept, attempt) }

    private static let attempt = "give up privileges"

    /// - Throws: if a thread of the process has capabilities: only the first one may.
    static func confirm(mayFirstThread: Bool) throws(ControlError) {
        let threads = threadsWithCapabilities().filter { !mayFirstThread || $0 != getpid() }
        if !threads.isEmpty {
            throw ControlError(
                attempt, reason: "threads \(threads.map(String.init).joined(separator: ", ")) still have capabilities")
        }
    }

    /// What bpf(2) was refused for. The capability counts in the first user namespace only.
    static var reasonForRefusedBPF: String {
        let mayIt = [CAP_BPF, CAP_SYS_ADMIN].contains { (try? isEffective($0)) == true }
        if !mayIt { return "CAP_BPF is missing" }
        // All ids, one to one: the first user namespace.
        let isFirst = firstLine(of: "/proc/self/uid_map").map { $0.split(separator: " ") == ["0", "0", "4294967295"] } ?? true
        return isFirst
            ? "although CAP_BPF is held: a seccomp filter or a security module forbids bpf(2)"
            : "CAP_BPF does not count in a user namespace like this one"
    }

    private static func firstLine(of path: String) -> String? {
        guard let file = unsafe fopen(path, "re") else { return nil }
        defer { unsafe fclose(file) }
        var line: [CChar] = Array(repeating: 0, count: 256)
        guard unsafe fgets(&line, Int32(line.count), file) != nil else { return nil }
        return String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// Whether the calling thread has a capability in its effective set.
    private static func isEffective(_ capability: cap_value_t) throws(ControlError) -> Bool {
        guard let state = unsafe cap_get_proc() else { throw ControlError("read the own capabilities", code: errno) }
        defer { unsafe cap_free(UnsafeMutableRawPointer(state)) }
        var value = CAP_CLEAR
        return unsafe cap_get_flag(state, capability, CAP_EFFECTIVE, &value) == 0 && value == CAP_SET
    }

    /// Makes `capabilities` the permitted and effective set of the calling thread, and empties the inheritable set.
    private static func setAll(to capabilities: [cap_value_t], _ attempt: String) throws(ControlError) {
        guard let state = unsafe cap_init() else { throw ControlError(attempt, code: errno) }
        defer { unsafe cap_free(UnsafeMutableRawPointer(state)) }
        for set in [CAP_PERMITTED, CAP_EFFECTIVE] where !capabilities.isEmpty {
            guard unsafe cap_set_flag(state, set, Int32(capabilities.count), capabilities, CAP_SET) == 0 else {
                throw ControlError(attempt, code: errno)
            }
        }
        // The refusal here is of a capability that the thread does not have, not of CAP_NET_ADMIN in particular.
        guard unsafe cap_set_proc(state) == 0 else {
            throw ControlError(attempt, code: errno, remedy: "the process has fewer than it was started with")
        }
    }

    /// The threads of this process, the calling one included, whose permitted set is not empty (`CapPrm` in proc(5)).
    static func threadsWithCapabilities() -> [Int] {
        guard let directory = unsafe opendir("/proc/self/task") else { return [] }
        defer { unsafe closedir(directory) }
        var threads: [Int] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard let thread = Int(name), let file = unsafe fopen("/proc/self/task/\(name)/status", "re") else { continue }
            defer { unsafe fclose(file) }
            var line: [CChar] = Array(repeating: 0, count: 256)
            while unsafe fgets(&line, Int32(line.count), file) != nil {
                let text = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
                guard text.hasPrefix("CapPrm:") else { continue }
                if text.dropFirst(7).contains(where: { $0.isHexDigit && $0 != "0" }) { threads.append(thread) }
                break
            }
        }
        return threads
    }

    private static func name(of capability: cap_value_t) -> String {
        switch capability {
        case CAP_NET_ADMIN: "CAP_NET_ADMIN"
        case CAP_NET_RAW: "CAP_NET_RAW"
        case CAP_BPF: "CAP_BPF"
        case CAP_SETUID: "CAP_SETUID"
        case CAP_SETGID: "CAP_SETGID"
        default: "CAP_SYS_ADMIN"
        }
    }

    /// The path of the running program.
    private static var executable: String {
        var path: [UInt8] = Array(repeating: 0, count: Int(PATH_MAX))
        let count = unsafe path.withUnsafeMutableBytes { bytes in
            unsafe readlink("/proc/self/exe", bytes.baseAddress!.assumingMemoryBound(to: CChar.self), bytes.count)
        }
        return count > 0 ? String(decoding: path.prefix(count), as: UTF8.self) : "tund"
    }
}
