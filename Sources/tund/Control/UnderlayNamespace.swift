internal import CLinux
internal import Glibc

/// `--underlay-netns`
enum NamespaceChoice: Equatable, Sendable, CustomStringConvertible {
    /// As `ip netns` names it: below /run/netns.
    case named(String)
    case path(String)
    /// Inherited from whoever started the process.
    case descriptor(Int32)

    var description: String {
        switch self {
        case .named(let name): name
        case .path(let path): path
        case .descriptor(let number): "fd:\(number)"
        }
    }
}

/// The network namespace that the tunnel's IPv4 side is in: the process's own or another one. A socket belongs for life to the
/// namespace it was opened in, so the kernel carries each packet from one to the other, as it does for a sit interface that was
/// moved.
///
/// A thread changes its own namespace only, and hands it to the threads it starts: so all of this is over before those are.
final class UnderlayNamespace {
    private let home: Int32
    /// nil: the same.
    private let there: Int32?

    /// - Throws: also if the calling thread may not go there, or not come back.
    init(_ choice: NamespaceChoice?) throws(ControlError) {
        guard let choice else {
            (home, there) = (-1, nil)
            return
        }
        let attempt = "enter the network namespace \(choice)"
        let opened: Int32
        switch choice {
        case .named(let name): opened = unsafe open("/run/netns/\(name)", O_RDONLY | O_CLOEXEC)
        case .path(let path): opened = unsafe open(path, O_RDONLY | O_CLOEXEC)
        case .descriptor(let number): opened = fcntl(number, F_DUPFD_CLOEXEC, 3)
        }
        if opened < 0 {
            let remedy: String? =
                switch (choice, errno) {
                case (.named, ENOENT): "`ip netns list` shows those that have a name; else pass a path like /proc/PID/ns/net"
                case (.descriptor, EBADF): "nothing was handed over, as in: tund run --underlay-netns fd:3 3</proc/1/ns/net"
                default: nil
                }
            throw ControlError(attempt, code: errno, remedy: remedy)
        }
        home = unsafe open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
        there = opened
        for descriptor in [opened, home] where setns(descriptor, Int32(tund_CLONE_NEWNET)) != 0 {
            let remedy: String? =
                switch errno {
                case EPERM: "needs CAP_SYS_ADMIN, in the user namespace that owns that one, too"
                case EINVAL: "it is no network namespace"
                default: nil
                }
            throw ControlError(attempt, code: errno, remedy: remedy)
        }
    }

    deinit {
        close(home)
        if let there { close(there) }
    }

    /// Runs `body` with the calling thread in the underlay's namespace. Needs CAP_SYS_ADMIN.
    func inside<Result: ~Copyable, Problem: Error>(_ body: () throws(Problem) -> Result) throws(Problem) -> Result {
        guard let there else { return try body() }
        enter(there)
        defer { enter(home) }
        return try body()
    }

    private func enter(_ descriptor: Int32) {
        // It worked once, so now it can only be memory that is missing.
        precondition(setns(descriptor, Int32(tund_CLONE_NEWNET)) == 0, "setns")
    }
}
