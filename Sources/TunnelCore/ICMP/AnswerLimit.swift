/// How many errors may be sent inward: a token bucket for each peer, and one for all of them.
///
/// A bucket is one number, the time at which it will be full again: taking a token moves it on by the time that a token takes to
/// come back, and it may not lie further ahead than a whole bucket takes. Peers share the buckets of a table by their hash, so
/// that nothing is ever allocated, and nobody gets a fresh bucket by pushing another one out.
public struct AnswerLimit: ~Copyable {
    /// Tokens a second, and how many a bucket holds.
    public struct Rate: Hashable, Sendable {
        let interval: UInt64
        let depth: UInt64

        public init(perSecond: Int, burst: Int) {
            interval = 1_000_000_000 / UInt64(perSecond)
            depth = interval * UInt64(burst)
        }
    }

    static var bucketCount: Int { 256 }
    private let rate: Rate
    private let rateOfAll: Rate
    private var buckets: FixedList<UInt64>
    private var all: UInt64 = 0

    public init(perPeer rate: Rate, all rateOfAll: Rate) {
        self.rate = rate
        self.rateOfAll = rateOfAll
        buckets = FixedList(capacity: Self.bucketCount)
        for _ in 0..<Self.bucketCount { buckets.append(0) }
    }

    /// Takes a token from both buckets, or none from either.
    /// - Parameter now: nanoseconds of a clock that never goes back.
    public mutating func allows(_ peer: IPv4Address, at now: UInt64) -> Bool {
        let bucket = FlowHash.pick(peer.rawValue &* 0x9E37_79B1, of: Self.bucketCount)
        guard let one = rate.take(from: buckets[bucket], at: now), let all = rateOfAll.take(from: all, at: now) else {
            return false
        }
        buckets[bucket] = one
        self.all = all
        return true
    }
}

extension AnswerLimit.Rate {
    /// The bucket without a token; nil if there is none in it.
    fileprivate func take(from full: UInt64, at now: UInt64) -> UInt64? {
        let next = max(full, now) + interval
        return next - now <= depth ? next : nil
    }
}
