internal import Synchronization

/// ICMPv4 errors about the remote that did not show whose packets they are about. For each of them the source of one of the next
/// packets is told (net/ipv6/sit.c `err_count`). The listening thread adds, workers take.
final class SoftErrors: Sendable {
    /// They are forgotten so long after the last one (IPTUNNEL_ERR_TIMEO).
    static var memory: UInt64 { 30_000_000_000 }

    private let count = Atomic<Int>(0)
    private let last = Atomic<UInt64>(0)

    /// Whether there may be one to take: a plain load, for every batch.
    var isEmpty: Bool { count.load(ordering: .relaxed) <= 0 }

    /// - Parameter now: nanoseconds of the monotonic clock.
    func add(at now: UInt64) {
        if isStale(at: now) { count.store(0, ordering: .relaxed) }
        last.store(now, ordering: .relaxed)
        count.add(1, ordering: .relaxed)
    }

    func take(at now: UInt64) -> Bool {
        if isStale(at: now) { count.store(0, ordering: .relaxed) }
        // Workers that take the last one together may bring it below 0 for a moment.
        if count.subtract(1, ordering: .relaxed).oldValue > 0 { return true }
        count.add(1, ordering: .relaxed)
        return false
    }

    private func isStale(at now: UInt64) -> Bool { now >= last.load(ordering: .relaxed) + Self.memory }
}
