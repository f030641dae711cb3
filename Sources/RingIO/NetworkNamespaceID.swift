internal import Glibc

/// Tells network namespaces apart: the file that stands for one (nsfs).
public struct NetworkNamespaceID: Hashable, Sendable {
    private let device: UInt
    private let inode: UInt

    init(of namespace: borrowing Descriptor) throws(SystemError) {
        var status = stat()
        try check("fstat", unsafe fstat(namespace.rawValue, &status))
        (device, inode) = (status.st_dev, status.st_ino)
    }

    /// The calling thread's.
    public static func current() throws(SystemError) -> NetworkNamespaceID {
        let path = "/proc/thread-self/ns/net"
        return try NetworkNamespaceID(of: Descriptor(try check("open(\(path))", unsafe open(path, O_RDONLY | O_CLOEXEC))))
    }
}
