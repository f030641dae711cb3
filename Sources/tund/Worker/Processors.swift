internal import CLinux

/// The CPUs this process may run on.
enum Processors {
    /// Bytes of a set: 1024 CPUs.
    private static let setSize = 128

    /// Their numbers, ascending.
    static let allowed: [Int] = {
        var set = [UInt8](repeating: 0, count: setSize)
        guard unsafe sched_getaffinity(0, UInt(setSize), &set) >= 0 else { return [0] }
        return (0..<setSize * 8).filter { set[$0 / 8] & 1 << UInt8($0 % 8) != 0 }
    }()

    static var count: Int { allowed.count }

    /// Keeps the calling thread on one CPU. A wish: without it the thread only runs less evenly.
    static func pinCurrentThread(to processor: Int) {
        var set = [UInt8](repeating: 0, count: setSize)
        set[processor / 8] = 1 << UInt8(processor % 8)
        _ = unsafe sched_setaffinity(0, UInt(setSize), set)
    }
}
