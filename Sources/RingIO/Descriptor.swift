internal import Glibc

/// A file descriptor that is closed when its owner goes.
public struct Descriptor: ~Copyable, Sendable {
    public let rawValue: Int32

    init(_ rawValue: Int32) { self.rawValue = rawValue }

    deinit { close(rawValue) }
}
