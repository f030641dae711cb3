internal import CLinux
internal import Glibc

/// What a process takes from whoever started it, put right before anything else is opened.
enum ProcessSetup {
    /// A closed standard descriptor would be taken by the next thing opened, and what is printed would go there.
    static func openStandardDescriptors() {
        for descriptor: Int32 in 0...2 where fcntl(descriptor, F_GETFD) < 0 {
            _ = unsafe open("/dev/null", descriptor == 0 ? O_RDONLY : O_WRONLY)  // the lowest free one, which is this one
        }
    }

    /// Rings count as locked memory, and each worker holds a dozen descriptors: takes what the limits allow, and what root may
    /// take beyond them. Before capabilities are dropped.
    static func raiseLimits() {
        var unlimited = rlimit(rlim_cur: rlim_t.max, rlim_max: rlim_t.max)
        if unsafe setrlimit(tund_RLIMIT_MEMLOCK, &unlimited) != 0 { raise(tund_RLIMIT_MEMLOCK) }
        raise(tund_RLIMIT_NOFILE)
    }

    /// The limit on address space (ulimit -v) in KiB; nil: none.
    static var addressSpaceLimit: Int? {
        var limit = rlimit()
        guard unsafe getrlimit(tund_RLIMIT_AS, &limit) == 0, limit.rlim_cur != rlim_t.max else { return nil }
        return Int(limit.rlim_cur >> 10)
    }

    /// Whether that leaves no room for a thread's stack.
    static var lacksRoomForStack: Bool {
        if addressSpaceLimit == nil { return false }
        let stack = 8 << 20
        let memory = unsafe mmap(nil, stack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if unsafe memory == MAP_FAILED { return true }
        unsafe munmap(memory, stack)
        return false
    }

    /// What tund asks /proc for: its own arguments (Swift reads them there), its threads and capabilities, other tunnels.
    /// - Returns: what is wrong with it; nil: nothing.
    static var missingProc: String? {
        unsafe access("/proc/self/cmdline", R_OK) == 0
            ? nil : "/proc is not mounted here, where tund looks for its own arguments (mount -t proc proc /proc)"
    }

    /// As far as the hard limit.
    private static func raise(_ resource: __rlimit_resource_t) {
        var limit = rlimit()
        guard unsafe getrlimit(resource, &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        _ = unsafe setrlimit(resource, &limit)
    }
}
