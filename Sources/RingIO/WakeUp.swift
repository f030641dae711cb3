internal import CLinux
internal import Glibc

/// Lets another thread end a loop's wait: an eventfd that stays readable from being raised until it is lowered.
public final class WakeUp: Sendable {
    let descriptor: Descriptor

    public init() throws(SystemError) {
        descriptor = Descriptor(try check("eventfd", eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))))
    }

    public var rawDescriptor: Int32 { descriptor.rawValue }

    /// From any thread, any number of times.
    public func raise() {
        var one: UInt64 = 1
        // It can only fail when the counter is full, and then it is raised already.
        _ = unsafe write(descriptor.rawValue, &one, MemoryLayout<UInt64>.size)
    }

    /// By the loop, before it looks at what it was woken up for.
    func lower() {
        var count: UInt64 = 0
        _ = unsafe read(descriptor.rawValue, &count, MemoryLayout<UInt64>.size)
    }
}
