internal import Synchronization
internal import TunnelCore

/// A worker's counters where other threads can read them. The worker publishes once a turn: plain stores, no locked
/// additions, and a reader sees each number as it was at some turn's end.
@safe
final class CounterPage: @unchecked Sendable {
    private let fields: UnsafeMutablePointer<Atomic<UInt64>>

    init() {
        unsafe fields = .allocate(capacity: Counters.fieldCount)
        for index in 0..<Counters.fieldCount { unsafe (fields + index).initialize(to: Atomic(0)) }
    }

    deinit {
        unsafe fields.deinitialize(count: Counters.fieldCount)
        unsafe fields.deallocate()
    }

    func publish(_ counters: borrowing Counters) {
        for index in 0..<Counters.fieldCount { unsafe fields[index].store(counters[field: index], ordering: .relaxed) }
    }

    func read() -> Counters {
        var counters = Counters()
        for index in 0..<Counters.fieldCount { counters[field: index] = unsafe fields[index].load(ordering: .relaxed) }
        return counters
    }
}
