internal import CLinux
internal import Glibc

/// A system call that failed.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was called, with the option or request that matters: `setsockopt(SO_BINDTODEVICE)`.
    public var call: String
    /// The errno value, positive.
    public var code: Int32

    public init(_ call: String, code: Int32) {
        self.call = call
        self.code = code
    }

    /// With the calling thread's errno.
    init(_ call: String) { self.init(call, code: errno) }

    /// The C library's text for the code.
    public var reason: String { Self.reason(of: code) }
    public var description: String { "\(call): \(reason)" }

    public static func reason(of code: Int32) -> String { unsafe String(cString: strerror(code)) }

    /// `ENETUNREACH`, or the number where it has no name.
    public static func name(of code: Int32) -> String {
        guard let name = unsafe strerrorname_np(code) else { return "errno-\(code)" }
        return unsafe String(cString: name)
    }
}

/// The result of a system call that returns -1 for an error.
@discardableResult
func check(_ call: @autoclosure () -> String, _ result: Int32) throws(SystemError) -> Int32 {
    if result < 0 { throw SystemError(call()) }
    return result
}
