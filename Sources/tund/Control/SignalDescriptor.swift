internal import CLinux
internal import Glibc
internal import RingIO

/// Signals as something to read: they are blocked for the calling thread and all that it starts, and wait in a descriptor.
struct SignalDescriptor: ~Copyable {
    let rawValue: Int32

    init(_ signals: [Int32]) throws(SystemError) {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for signal in signals { unsafe sigaddset(&set, signal) }
        unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
        // Whoever reads our output may go; that is no reason to stop carrying packets.
        _ = signal(SIGPIPE, SIG_IGN)
        rawValue = unsafe signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
        if rawValue < 0 { throw SystemError("signalfd", code: errno) }
    }

    deinit { close(rawValue) }

    /// The next signal that came, if any.
    func next() -> Int32? {
        var info = signalfd_siginfo()
        let length = unsafe read(rawValue, &info, MemoryLayout<signalfd_siginfo>.size)
        return length == MemoryLayout<signalfd_siginfo>.size ? Int32(info.ssi_signo) : nil
    }
}

enum Clock {
    /// Whole seconds of the monotonic clock.
    static var seconds: Int { milliseconds / 1000 }

    static var milliseconds: Int {
        var now = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &now)
        return now.tv_sec * 1000 + now.tv_nsec / 1_000_000
    }

    static var nanoseconds: UInt64 {
        var now = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &now)
        return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
    }
}
