internal import CLinux
internal import CNetlink
internal import Glibc

/// The name of a Unix socket in the abstract namespace, and whose socket it is.
struct UnixSocketName: Equatable, Sendable {
    /// Without the zero byte that it begins with. Anything: every user may choose one.
    let name: String
    /// Of who opened the socket; nil where the kernel does not tell (before Linux 5.3, or without CONFIG_UNIX_DIAG).
    let uid: UInt32?
}

/// The names of a network namespace's Unix sockets.
final class UnixSocketNames {
    /// For sock_diag(7); -1: the kernel has none.
    private let diagnosis: Int32
    private let list: TextFile

    /// In the calling thread's network namespace.
    init() {
        diagnosis = socket(AF_NETLINK, tund_SOCK_RAW | tund_SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        list = TextFile("/proc/thread-self/net/unix")
        // The answer comes from the kernel at once or not at all.
        var patience = timeval(tv_sec: 1, tv_usec: 0)
        _ = unsafe setsockopt(diagnosis, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(diagnosis) }

    /// Those that begin with `prefix`.
    func all(beginningWith prefix: String) -> [UnixSocketName] {
        let names = diagnosed(beginningWith: prefix) ?? listed()
        return names.filter { $0.name.hasPrefix(prefix) }
    }

    // MARK: /proc/net/unix

    func listed() -> [UnixSocketName] {
        list.lines().compactMap { line in
            // The zero byte is shown as '@'.
            guard let start = line.firstIndex(of: "@") else { return nil }
            return UnixSocketName(name: String(line[line.index(after: start)...]), uid: nil)
        }
    }

    // MARK: sock_diag(7)

    /// nil: the kernel does not answer.
    private func diagnosed(beginningWith prefix: String) -> [UnixSocketName]? {
        var request = Request()
        let length = MemoryLayout<Request>.size
        guard unsafe send(diagnosis, &request, length, 0) == length else { return nil }

        let wanted = [0] + Array(prefix.utf8)
        var names: [UnixSocketName] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = unsafe recv(diagnosis, &buffer, buffer.count, 0)
            guard count > 0 else { return nil }
            switch Self.take(buffer[..<count], beginningWith: wanted, into: &names) {
            case .more: continue
            case .end: return names
            case .refusal: return nil
            }
        }
    }

    /// All Unix sockets, whatever their state, with name and uid.
    private struct Request {
        var header = nlmsghdr(
            nlmsg_len: UInt32(MemoryLayout<nlmsghdr>.size + MemoryLayout<unix_diag_req>.size),
            nlmsg_type: UInt16(SOCK_DIAG_BY_FAMILY), nlmsg_flags: UInt16(NLM_F_REQUEST | NLM_F_DUMP), nlmsg_seq: 0, nlmsg_pid: 0)
        var body = unix_diag_req(
            sdiag_family: UInt8(AF_UNIX), sdiag_protocol: 0, pad: 0, udiag_states: .max, udiag_ino: 0,
            udiag_show: UInt32(UDIAG_SHOW_NAME | UDIAG_SHOW_UID), udiag_cookie: (0, 0))
    }

    enum Progress { case more, end, refusal }

    /// Reads one datagram of the answer: messages of `nlmsghdr | unix_diag_msg | attributes`.
    static func take(_ datagram: ArraySlice<UInt8>, beginningWith wanted: [UInt8], into names: inout [UnixSocketName]) -> Progress
    {
        var rest = datagram
        while let message = NetlinkBytes.message(&rest) {
            switch Int32(message.type) {
            case NLMSG_DONE: return .end
            case NLMSG_ERROR: return .refusal
            case Int32(SOCK_DIAG_BY_FAMILY):
                var attributes = message.payload.dropFirst(MemoryLayout<unix_diag_msg>.size)
                var name: ArraySlice<UInt8>?
                var uid: UInt32?
                while let attribute = NetlinkBytes.attribute(&attributes) {
                    switch Int(attribute.type) {
                    case UNIX_DIAG_NAME: name = attribute.payload
                    case UNIX_DIAG_UID: uid = NetlinkBytes.load(attribute.payload, as: UInt32.self)
                    default: break
                    }
                }
                guard let name, name.starts(with: wanted) else { continue }
                names.append(UnixSocketName(name: String(decoding: name.dropFirst(), as: UTF8.self), uid: uid))
            default: continue
            }
        }
        return .more
    }
}

/// The two layouts of netlink(7), each taken off the front of what is there. nil: nothing whole is left.
enum NetlinkBytes {
    static func message(_ bytes: inout ArraySlice<UInt8>) -> (type: UInt16, payload: ArraySlice<UInt8>)? {
        guard let length = load(bytes, as: UInt32.self), length >= 16, length <= bytes.count,
            let type = load(bytes.dropFirst(4), as: UInt16.self)
        else { return nil }
        defer { bytes = bytes.dropFirst(aligned(Int(length))) }
        return (type, bytes.prefix(Int(length)).dropFirst(16))
    }

    static func attribute(_ bytes: inout ArraySlice<UInt8>) -> (type: UInt16, payload: ArraySlice<UInt8>)? {
        guard let length = load(bytes, as: UInt16.self), length >= 4, length <= bytes.count,
            let type = load(bytes.dropFirst(2), as: UInt16.self)
        else { return nil }
        defer { bytes = bytes.dropFirst(aligned(Int(length))) }
        return (type, bytes.prefix(Int(length)).dropFirst(4))
    }

    /// In this machine's order.
    static func load<Value: FixedWidthInteger & BitwiseCopyable>(_ bytes: ArraySlice<UInt8>, as: Value.Type) -> Value? {
        guard bytes.count >= MemoryLayout<Value>.size else { return nil }
        return unsafe bytes.withUnsafeBytes { unsafe $0.loadUnaligned(as: Value.self) }
    }

    private static func aligned(_ length: Int) -> Int { (length + 3) & ~3 }
}
