/// Longest-prefix match over IPv6 prefixes, for tables that are built once and then only read.
///
/// The prefixes cut the address space into intervals, each with one answer, kept sorted in one flat array: a lookup is a
/// binary search without pointers to chase, 24 bytes a step, and an address outside every prefix is an interval, too.
public struct RouteTable<Value: BitwiseCopyable & Sendable>: Sendable {
    /// From `start` up to the next interval's start.
    @usableFromInline
    struct Interval: Sendable {
        @usableFromInline let start: IPv6Address
        @usableFromInline let value: Value
        @usableFromInline init(start: IPv6Address, value: Value) {
            self.start = start
            self.value = value
        }
    }

    /// Sorted by start; the first one starts at `::`, so every address is in one.
    @usableFromInline let intervals: [Interval]

    /// - Parameters:
    ///   - entries: prefixes and their values; of two equal prefixes the later one counts.
    ///   - fallback: the answer for addresses in none of them.
    public init(_ entries: [(prefix: IPv6Prefix, value: Value)], fallback: Value) {
        // Outer prefixes first, then by position in `entries`, so that in the sweep below the later one covers the earlier.
        let sorted = entries.enumerated().sorted { left, right in
            let (a, b) = (left.element.prefix, right.element.prefix)
            if a.address != b.address { return a.address < b.address }
            return a.length != b.length ? a.length < b.length : left.offset < right.offset
        }.map(\.element)
        var intervals: [Interval] = []
        func begin(_ start: IPv6Address, _ value: Value) {
            if intervals.last?.start == start { intervals.removeLast() }
            intervals.append(Interval(start: start, value: value))
        }
        // The prefixes that hold the current position, outermost first: prefixes nest or are apart, they never cross.
        var open: [(last: IPv6Address, value: Value)] = []
        func close(before position: IPv6Address?) {
            while let top = open.last, position.map({ top.last < $0 }) ?? true {
                open.removeLast()
                if let next = top.last.successor { begin(next, open.last?.value ?? fallback) }
            }
        }
        begin(.unspecified, fallback)
        for entry in sorted {
            close(before: entry.prefix.address)
            begin(entry.prefix.address, entry.value)
            open.append((entry.prefix.last, entry.value))
        }
        close(before: nil)
        self.intervals = intervals
    }

    /// The value of the longest prefix that holds the address, or the fallback.
    @inlinable
    public func lookup(_ address: IPv6Address) -> Value {
        let intervals = intervals.span
        var base = 0
        var count = intervals.count
        // The last interval whose start is not above the address. The first always qualifies.
        while count > 1 {
            let half = count / 2
            let start = unsafe intervals[unchecked: base &+ half].start
            base = address < start ? base : base &+ half
            count &-= half
        }
        return unsafe intervals[unchecked: base].value
    }
}
