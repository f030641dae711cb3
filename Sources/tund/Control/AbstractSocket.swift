internal import CLinux
internal import Glibc

/// A Unix socket that is there for its name in the abstract namespace. Such a name belongs to the network namespace that the socket was
/// opened in; one process at a time can have it, any user's, and it ends with the process, however that ends.
final class AbstractSocket {
    let descriptor: Int32
    private(set) var hasName = false

    /// In the calling thread's network namespace.
    /// - Throws: EMFILE and the like.
    init() throws(ControlError) {
        descriptor = socket(AF_UNIX, tund_SOCK_DGRAM | tund_SOCK_CLOEXEC, 0)
        if descriptor < 0 { throw ControlError("open a Unix socket", code: errno) }
    }

    deinit { close(descriptor) }

    /// Takes a name of at most 107 bytes, once.
    /// - Returns: 0, or the errno: EADDRINUSE where another process has it.
    func take(_ name: String) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(name.utf8)
        if bytes.count >= MemoryLayout.size(ofValue: address.sun_path) { return ENAMETOOLONG }
        // It begins with a zero byte, and does not end with one.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0[1...].copyBytes(from: bytes) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + 1 + bytes.count)
        let result = unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(descriptor, $0, length) }
        }
        hasName = result == 0
        return hasName ? 0 : errno
    }
}
