import RingIO
import TunnelCore

@testable import tund

/// An engine without a kernel: it lends slots to the worker, keeps account of them, and notes every breach of the contract
/// between the two. Completions come in any turn, and in any order unless the writes are to keep theirs.
struct FakeEngine: PacketEngine, ~Copyable {
    struct Frame {
        var slices: [Range<Int>]
        /// As queued; it must still read so when it completes.
        var bytes: [UInt8]
        var isOpen = true
    }

    /// One direction's queue, numbered as MessageQueue numbers.
    struct Queue {
        var frames: [Frame] = []
        var next: [Range<Int>] = []
        var inFlight = 0
        /// The turn in which the batch began.
        var turn = 0
    }

    var memory: PacketMemory
    let sendCapacity: (frames: Int, slices: Int)
    var random: Randomness

    /// Still to come, first one first.
    var tunInput: [[UInt8]] = []
    var underlayInput: [[UInt8]] = []
    /// Most arrivals of each kind in a turn, and how many of 8 open frames complete in it.
    var burst = 4
    var completions: UInt64 = 4
    /// What the TUN answers to a frame in a turn: 0, or an errno.
    var tun: (_ bytes: [UInt8], _ turn: Int) -> Int32 = { _, _ in 0 }
    /// Writes complete as they were queued, as a TUN's do.
    var writesKeepOrder = true
    /// One of so many sends fails; 0: none.
    var failingSends: UInt64 = 0
    /// What the underlay answers to a packet: nil, or an errno and the path MTU.
    var path: (_ bytes: [UInt8]) -> (code: Int32, mtu: Int)? = { _ in nil }

    /// What the worker is told in a turn. When there is nothing left to do, it is to stop.
    let mailbox: Mailbox
    var policies: [Int: TunnelPolicy] = [:]

    /// In the order in which they were queued.
    var sent: [(destination: UInt32, bytes: [UInt8])] = []
    var accepted: [[UInt8]] = []
    var refused: [[UInt8]] = []
    /// Packets that went as IPv4 fragments, and those that never went.
    var fragmented: [[UInt8]] = []
    var unsent: [[UInt8]] = []
    /// What was made in scratch memory and handed to the TUN past the batches.
    var replies: [[UInt8]] = []
    var breaches: [String] = []
    var turns = 0
    var isIdle: Bool { tunInput.isEmpty && underlayInput.isEmpty && canSend && canDeliver }

    private enum Direction: Int { case send, write }
    private var queues = [Queue(), Queue()]
    /// Refused frames that the worker still holds.
    private var kept: Set<Int> = []
    private var isLent: [Bool]
    private var references: [Int]
    private var idleTurns = 0
    private var acceptedInBatch: [(number: Int, bytes: [UInt8])] = []

    init(slots: Int, sendFrames: Int, scratch: Int, seed: UInt64) throws {
        let wakeUp = try WakeUp()
        memory = try PacketMemory(slotCount: slots, scratch: scratch)
        mailbox = Mailbox(wakeUp)
        sendCapacity = (sendFrames, 2 * sendFrames)
        random = Randomness(state: seed)
        isLent = Array(repeating: false, count: slots)
        references = Array(repeating: 0, count: slots)
    }

    var lentSlots: Int { isLent.count { $0 } }

    mutating func start() throws(SystemError) {}
    mutating func finish() {}

    // MARK: A turn

    mutating func turn(_ sink: inout some PacketSink & ~Copyable) throws(SystemError) -> EngineState {
        turns += 1
        if !kept.isEmpty { breaches.append("turn \(turns): refused frames \(kept) were not taken back") }
        for number in pick(.send) {
            let isLost = failingSends != 0 && random.next() % failingSends == 0
            let bytes = queues[0].frames[number].bytes
            check(queues[0].frames[number], "send \(number)")
            if let (code, mtu) = isLost ? (5, 0) : path(bytes) {
                switch sink.unsent(frame: number, code: code, pathMTU: mtu, memory: &memory) {
                case .none: unsent.append(bytes)
                case .fragment: fragmented.append(bytes)
                case .reply(let offset, let length):
                    unsent.append(bytes)
                    reply(offset: offset, length: length)
                }
                check(queues[0].frames[number], "failed send \(number)")
            } else {
                sink.sent(frame: number)
            }
            complete(.send, number)
        }
        for number in pick(.write) {
            let frame = queues[1].frames[number]
            check(frame, "write \(number)")
            let code = tun(frame.bytes, turns)
            if code == 0 {
                acceptedInBatch.append((number, frame.bytes))
                sink.delivered(frame: number)
            } else if sink.refused(frame: number, code: code) {
                kept.insert(number)
                continue
            } else {
                refused.append(frame.bytes)
            }
            complete(.write, number)
        }
        if canDeliver { settle() }

        let half = isLent.count / 2
        for _ in 0..<random.below(burst + 1) {
            guard !tunInput.isEmpty, let offset = lend(0..<half, tunInput[0], at: 0) else { break }
            sink.fromTun(offset: offset, length: tunInput.removeFirst().count)
        }
        for _ in 0..<random.below(burst + 1) {
            guard !underlayInput.isEmpty, let offset = lend(half..<isLent.count, underlayInput[0], at: 0) else { break }
            sink.fromUnderlay(offset: offset, length: underlayInput.removeFirst().count)
        }
        // A few turns for what the worker may still hold.
        idleTurns = isIdle ? idleTurns + 1 : 0
        if idleTurns > 4 { mailbox.stop() }
        if let policy = policies[turns] { mailbox.post(policy) }
        return idleTurns > 4 || policies[turns] != nil ? .wokenUp : .running
    }

    /// Numbers of open frames that complete now, in a random order.
    private mutating func pick(_ direction: Direction) -> [Int] {
        let frames = queues[direction.rawValue].frames
        var numbers: [Int] = []
        let isOrdered = direction == .write && writesKeepOrder
        for number in frames.indices where frames[number].isOpen {
            if random.next() % 8 < completions {
                numbers.insert(number, at: isOrdered ? numbers.count : random.below(numbers.count + 1))
            } else if isOrdered {
                break
            }
        }
        return numbers
    }

    private mutating func check(_ frame: Frame, _ name: String) {
        if gather(frame.slices) != frame.bytes { breaches.append("turn \(turns): \(name) has other bytes now") }
    }

    private mutating func complete(_ direction: Direction, _ number: Int) {
        let (queue, frames) = (direction.rawValue, queues[direction.rawValue].frames)
        guard frames.indices.contains(number), frames[number].isOpen else {
            breaches.append("turn \(turns): frame \(number) ended twice")
            return
        }
        queues[queue].frames[number].isOpen = false
        for slice in frames[number].slices {
            guard let slot = slot(of: slice) else { continue }
            references[slot] -= 1
            if references[slot] == 0 { free(slot) }
        }
        queues[queue].inFlight -= 1
        if queues[queue].inFlight == 0 { queues[queue].frames.removeAll() }
    }

    private mutating func settle() {
        accepted += acceptedInBatch.sorted { $0.number < $1.number }.map(\.bytes)
        acceptedInBatch.removeAll()
    }

    // MARK: Slots

    private func slot(of slice: Range<Int>) -> Int? {
        let slot = slice.lowerBound / PacketMemory.slotSize
        return slot < isLent.count ? slot : nil
    }

    private mutating func lend(_ slots: Range<Int>, _ bytes: [UInt8], at start: Int) -> Int? {
        guard let slot = slots.first(where: { !isLent[$0] }) else { return nil }
        isLent[slot] = true
        let offset = slot * PacketMemory.slotSize
        var span = memory.mutableBytes
        for (index, byte) in bytes.enumerated() { span.storeBytes(of: byte, toByteOffset: offset + index, as: UInt8.self) }
        return offset
    }

    private mutating func free(_ slot: Int) {
        if !isLent[slot] { breaches.append("turn \(turns): slot \(slot) freed twice") }
        isLent[slot] = false
    }

    private func gather(_ slices: [Range<Int>]) -> [UInt8] {
        unsafe memory.bytes.withUnsafeBytes { bytes in slices.flatMap { unsafe Array(bytes[$0]) } }
    }

    mutating func release(offset: Int) {
        let slot = offset / PacketMemory.slotSize
        if references[slot] != 0 { breaches.append("turn \(turns): slot \(slot) released while frames use it") }
        free(slot)
    }

    // MARK: Frames

    var canSend: Bool { queues[0].inFlight == 0 }
    var canDeliver: Bool { queues[1].inFlight == 0 }

    private mutating func add(_ offset: Int, _ length: Int, to direction: Direction) {
        let slice = offset..<offset + length
        if let slot = slot(of: slice) {
            references[slot] += 1
            if !isLent[slot] { breaches.append("turn \(turns): slice in slot \(slot), which is free") }
            if slice.upperBound > (slot + 1) * PacketMemory.slotSize { breaches.append("turn \(turns): slice leaves its slot") }
        } else if slice.upperBound > memory.scratch.upperBound {
            breaches.append("turn \(turns): slice behind the memory")
        }
        queues[direction.rawValue].next.append(slice)
    }

    /// Ends the frame that is being put together; the queue as it is then.
    private mutating func end(_ direction: Direction) -> Queue {
        var queue = queues[direction.rawValue]
        if queue.inFlight == 0 { queue.turn = turns }
        queue.frames.append(Frame(slices: queue.next, bytes: gather(queue.next)))
        queue.next = []
        queue.inFlight += 1
        queues[direction.rawValue] = queue
        return queue
    }

    mutating func addSendSlice(offset: Int, length: Int) { add(offset, length, to: .send) }
    mutating func addDeliverySlice(offset: Int, length: Int) { add(offset, length, to: .write) }

    mutating func send(to destination: UInt32, ttl: UInt8, tos: UInt8, dontFragment: Bool, carrying inner: InnerProtocol) {
        let queue = end(.send)
        sent.append((destination, queue.frames.last!.bytes))
        if queue.turn != turns { breaches.append("turn \(turns): sent while the batch of turn \(queue.turn) is under way") }
        let slices = queue.frames.reduce(0) { $0 + $1.slices.count }
        if queue.frames.count > sendCapacity.frames || slices > sendCapacity.slices {
            breaches.append("turn \(turns): too many sends")
        }
    }

    mutating func deliver() {
        let queue = end(.write)
        if queue.turn != turns && kept.isEmpty { breaches.append("turn \(turns): delivered while another batch is under way") }
    }

    mutating func deliverAtOnce() -> Bool {
        if !canDeliver { breaches.append("turn \(turns): delivered at once while a batch is under way") }
        let frame = end(.write).frames.count - 1
        let bytes = queues[1].frames[frame].bytes
        complete(.write, frame)
        return take(bytes)
    }

    /// Past the batches.
    private mutating func take(_ bytes: [UInt8]) -> Bool {
        let isTaken = tun(bytes, turns) == 0
        if isTaken { accepted.append(bytes) } else { refused.append(bytes) }
        return isTaken
    }

    @discardableResult
    mutating func reply(offset: Int, length: Int) -> Bool {
        let slice = offset..<offset + length
        let bytes = gather([slice])
        if let slot = slot(of: slice) {
            // Part of a packet that no frame needs any more, or of one that the TUN refused.
            let isKept = kept.contains { queues[1].frames[$0].slices.contains { slice.clamped(to: $0) == slice } }
            if !isLent[slot] || references[slot] != 0 && !isKept {
                breaches.append("turn \(turns): a reply from \(offset), where packets lie")
            }
            return take(bytes)
        }
        if slice.upperBound > memory.scratch.upperBound { breaches.append("turn \(turns): a reply from behind the memory") }
        replies.append(bytes)
        return true
    }

    mutating func forget(frame: Int) {
        if kept.remove(frame) == nil { breaches.append("turn \(turns): frame \(frame) forgotten, which was not kept") }
        complete(.write, frame)
        if canDeliver { settle() }
    }
}

/// SplitMix64.
struct Randomness {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}
