/// Notes of packets that were not asked about yet, by how the packets begin. Its room is allocated once.
@safe
struct MergeNoteTable: ~Copyable, @unchecked Sendable {
    /// A packet's first bytes. With the IPv4 identification in them two alike are rare, unless the sender leaves that 0 (RFC 6864).
    typealias Head = SIMD8<UInt64>

    /// All packets that begin alike.
    private struct Entry {
        var head: Head
        /// In the bucket, or of those that are free.
        var next: Int32
        /// Of how many packets.
        var count: Int32
        /// 0: they differ in it.
        var segmentSize: UInt16
        var isOld: Bool
    }

    private static var bucketCount: Int { 4096 }
    private static var none: Int32 { -1 }

    let capacity: Int
    private let entries: UnsafeMutablePointer<Entry>
    private let buckets: UnsafeMutablePointer<Int32>
    /// Nobody shall choose packets that meet in one bucket.
    private let seed = UInt64.random(in: 0 ... .max)
    private(set) var count = 0
    /// Entries that were in use at any time come first.
    private var used = 0
    private var free = none
    /// So many more times of `forgetOld` a packet without a note may have had one.
    private var doubts = 0

    init(capacity: Int) {
        self.capacity = capacity
        unsafe entries = .allocate(capacity: capacity)
        unsafe buckets = .allocate(capacity: Self.bucketCount)
        unsafe buckets.initialize(repeating: Self.none, count: Self.bucketCount)
    }

    deinit {
        unsafe entries.deallocate()
        unsafe buckets.deallocate()
    }

    /// Whether `take` answers `.none` to everything.
    var isEmpty: Bool { count == 0 && doubts == 0 }

    /// Notes were lost.
    mutating func isIncomplete() { doubts = 2 }

    mutating func add(_ head: Head, segmentSize: UInt16) {
        let bucket = bucket(of: head)
        if let index = find(head, in: bucket) {
            if unsafe entries[index].segmentSize != segmentSize { unsafe entries[index].segmentSize = 0 }
            unsafe entries[index].count &+= 1
            unsafe entries[index].isOld = false
            return
        }
        let index: Int32
        if free != Self.none {
            index = free
            free = unsafe entries[Int(index)].next
        } else if used < capacity {
            index = Int32(used)
            used += 1
        } else {
            return isIncomplete()
        }
        unsafe (entries + Int(index)).initialize(
            to: Entry(head: head, next: buckets[bucket], count: 1, segmentSize: segmentSize, isOld: false))
        unsafe buckets[bucket] = index
        count += 1
    }

    /// A note is good for one packet.
    mutating func take(_ head: Head) -> MergeNotes.Note {
        let bucket = bucket(of: head)
        guard count > 0, let index = find(head, in: bucket) else { return doubts == 0 ? .none : .unclear }
        let size = unsafe entries[index].segmentSize
        unsafe entries[index].count &-= 1
        if unsafe entries[index].count == 0 { remove(index, from: bucket) }
        return size == 0 ? .unclear : .segments(of: Int(size))
    }

    /// Forgets notes of packets that nobody asked about. To be called when all packets have been asked about that came before the
    /// call before: then what that one found is for none that is still to come.
    mutating func forgetOld() {
        if doubts > 0 { doubts -= 1 }
        if count == 0 { return }
        for bucket in 0..<Self.bucketCount {
            var index = unsafe buckets[bucket]
            while index != Self.none {
                let next = unsafe entries[Int(index)].next
                if unsafe entries[Int(index)].isOld {
                    remove(Int(index), from: bucket)
                } else {
                    unsafe entries[Int(index)].isOld = true
                }
                index = next
            }
        }
    }

    private func bucket(of head: Head) -> Int {
        var hash = seed
        for index in 0..<8 {
            hash = (hash ^ head[index]) &* 0x9E37_79B9_7F4A_7C15
            hash ^= hash >> 29
        }
        return Int(truncatingIfNeeded: hash >> 40) & (Self.bucketCount - 1)
    }

    private func find(_ head: Head, in bucket: Int) -> Int? {
        var index = unsafe buckets[bucket]
        while index != Self.none {
            if unsafe entries[Int(index)].head == head { return Int(index) }
            index = unsafe entries[Int(index)].next
        }
        return nil
    }

    private mutating func remove(_ index: Int, from bucket: Int) {
        if unsafe buckets[bucket] == Int32(index) {
            unsafe buckets[bucket] = entries[index].next
        } else {
            var before = unsafe Int(buckets[bucket])
            while unsafe entries[before].next != Int32(index) { before = unsafe Int(entries[before].next) }
            unsafe entries[before].next = entries[index].next
        }
        unsafe entries[index].next = free
        free = Int32(index)
        count -= 1
    }
}
