internal import CLiburing
internal import CLinux
internal import Glibc

/// How packets are taken from the TUN.
public enum TunReading: String, Sendable, CaseIterable {
    /// One request that yields a packet at a time for ever (Linux 6.7).
    case multishot
    /// Several reads that each wait for a packet (6.4).
    case reads
    /// A poll, and a burst of reads that do not wait when it fires. Before 6.4 every other way ends in a thread of io-wq.
    case burst
}

/// A ring that is made ahead of the engine that will use it. Its memory counts against RLIMIT_MEMLOCK, of all processes of the
/// user together, unless it is made while CAP_IPC_LOCK is held; and the engine comes to be when that is long gone.
public final class ReservedRing: @unchecked Sendable {
    fileprivate var ring: Ring?

    public init() throws(SystemError) {
        ring = try Ring(entries: 2048, completions: 8192)
    }

    /// The best way to read a TUN that the running kernel has.
    public var bestReading: TunReading {
        guard let supportsMultishot = ring?.supports(tund_op_read_multishot) else { return .burst }
        return supportsMultishot ? .multishot : .burst
    }
}

/// The engine on io_uring: one call of the kernel a turn submits the sends and writes of the last one and waits for more.
public struct UringEngine<Link: Underlay & ~Copyable>: PacketEngine, ~Copyable, Sendable {
    /// What a completion answers to; in the user data's upper half.
    private enum Request: UInt64 {
        case tunRead = 1
        case tunPoll
        case receive
        case send
        /// A send that comes again without DF.
        case resend
        case write
        case wakeUp
        case retryTimer
    }

    /// Positions of the registered descriptors.
    private enum File {
        static var tun: Int32 { 0 }
        static var wakeUp: Int32 { 1 }
        static func sender(_ inner: InnerProtocol) -> Int32 { inner == .ipv6 ? 2 : 3 }
        static func fragmentingSender(_ inner: InnerProtocol) -> Int32 { inner == .ipv6 ? 4 : 5 }
        static func wholeSender(_ inner: InnerProtocol) -> Int32 { inner == .ipv6 ? 6 : 7 }
        /// Up to four, two for each protocol.
        static var receivers: Int32 { 8 }
    }

    /// In the user data of a send, beside its frame's number: it carries IPv4.
    private static var carriesIPv4: Int { 1 << 31 }

    /// Of the IPv4 header that the kernel writes.
    private static var headerLength: Int { 20 }

    /// Buffers for TUN reads and for receives; powers of two.
    private static var tunSlots: Int { 128 }
    private static var underlaySlots: Int { 256 }
    /// Frames and slices of one batch for the underlay, and room for the headers of segments.
    private static var sendFrames: Int { 4096 }
    private static var scratchSize: Int { 1 << 19 }
    /// Reads in one burst, or in flight.
    private static var burstLength: Int { 32 }
    /// Packets in a turn from which on the next turn waits for as many again, up to a limit, for so many nanoseconds.
    private static var fewArrivals: Int { 4 }
    private static var mostAwaited: Int { 96 }
    private static var longestGathering: Int64 { 100_000 }
    /// Bytes of a super-packet whose segments take as long to send as a gathering may last.
    private static var bulk: Int { 16 << 10 }
    /// How long a source that fails is left alone.
    private static var retryNanoseconds: Int64 { 50_000_000 }

    // The kernel may write to memory and buffer rings until the ring is closed, so it comes first in tearing down: properties
    // are destroyed in the order of declaration.
    private let ring: Ring
    public var memory: PacketMemory
    private var tunBuffers: BufferRing
    private var underlayBuffers: BufferRing
    /// By slot: frames on their way that use it.
    private let references: SlotReferences
    private var sends: MessageQueue
    private var writes: MessageQueue
    private let tun: TunDevice
    private let underlay: Link
    private let wakeUp: WakeUp
    private let errors: ErrorTable
    private let reading: TunReading
    /// Nanoseconds to look for packets before sleeping.
    private let busyPoll: Int
    private let retryDelay: TimeSpec

    private var isReadArmed = false
    /// Of the receivers, those that wait to be armed, as bits by number.
    private var idleReceivers: UInt32
    private var isRetryArmed = false
    private var isPollArmed = false
    private var readsInFlight = 0
    /// Packets that the last turn brought.
    private var arrivals = 0
    private var broughtBulk = false
    private var burstIsDry = true
    /// Of the last error that the sender's queue held.
    private var narrowPath: (destination: UInt32, mtu: Int) = (0, 0)

    /// - Parameters:
    ///   - reserved: its ring is taken; it serves one engine.
    ///   - tun: a queue opened non-blocking exactly if `reading` is `.burst`.
    ///   - wakeUp: ends the wait of a turn.
    ///   - errors: counts what fails.
    ///   - microseconds: how long to look for packets before sleeping; costs a CPU, saves the time to wake up.
    public init(
        _ reserved: ReservedRing, tun: consuming TunDevice, underlay: consuming Link, wakeUp: WakeUp, errors: ErrorTable,
        reading: TunReading, busyPoll microseconds: Int = 0
    ) throws(SystemError) {
        let slots = Self.tunSlots + Self.underlaySlots
        guard let ring = reserved.ring.take() else { throw SystemError("a second engine on one ring", code: EBUSY) }
        let memory = try PacketMemory(slotCount: slots, scratch: Self.scratchSize)
        var tunBuffers = try BufferRing(group: 0, entries: Self.tunSlots, in: ring)
        var underlayBuffers = try BufferRing(group: 1, entries: Self.underlaySlots, in: ring)
        let (ipv6, ipv4) = (underlay.sockets(carrying: .ipv6), underlay.sockets(carrying: .ipv4))
        let receivers = [ipv6?.receiver, ipv6?.secondReceiver, ipv4?.receiver, ipv4?.secondReceiver].map { $0 ?? -1 }
        // -1 leaves a position empty.
        try ring.register(
            [
                tun.descriptor.rawValue, wakeUp.rawDescriptor, ipv6?.sender ?? -1, ipv4?.sender ?? -1,
                ipv6?.fragmentingSender ?? -1, ipv4?.fragmentingSender ?? -1, ipv6?.wholeSender ?? -1,
                ipv4?.wholeSender ?? -1,
            ] + receivers)
        idleReceivers = receivers.indices.reduce(0) { $0 | (receivers[$1] < 0 ? 0 : 1 << UInt32($1)) }
        for slot in 0..<Self.tunSlots { tunBuffers.add(slot, of: memory) }
        for slot in Self.tunSlots..<slots { underlayBuffers.add(slot, of: memory) }
        self.ring = ring
        self.memory = memory
        self.tunBuffers = tunBuffers
        self.underlayBuffers = underlayBuffers
        references = SlotReferences(count: slots)
        sends = MessageQueue(frames: Self.sendFrames, slices: 2 * Self.sendFrames)
        // Twice: a merged frame that the TUN refuses goes again packet by packet.
        writes = MessageQueue(frames: 2 * Self.underlaySlots, slices: 2 * Self.underlaySlots)
        self.tun = tun
        self.underlay = underlay
        self.wakeUp = wakeUp
        self.errors = errors
        self.reading = reading
        busyPoll = microseconds * 1000
        retryDelay = TimeSpec(nanoseconds: Self.retryNanoseconds)
    }

    public mutating func start() throws(SystemError) {
        try ring.enable()
        awaitWakeUp()
    }

    public mutating func finish() { ring.quiesce() }

    // MARK: A turn

    public mutating func turn(_ sink: inout some PacketSink & ~Copyable) throws(SystemError) -> EngineState {
        tunBuffers.publish()
        underlayBuffers.publish()
        arm()
        try wait()
        arrivals = 0
        broughtBulk = false
        var state = EngineState.running
        while let completion = ring.takeCompletion() {
            let result = Int(completion.result)
            switch unsafe Request(rawValue: completion.userData >> 32).unsafelyUnwrapped {
            case .tunRead:
                readCompleted(completion, &sink, &state)
            case .receive:
                if !completion.hasMore { idleReceivers |= 1 << UInt32(truncatingIfNeeded: completion.userData) }
                if result >= 0 {
                    underlayBuffers.took()
                    arrivals &+= 1
                    sink.fromUnderlay(offset: completion.buffer &* PacketMemory.slotSize, length: result)
                } else if Self.isAboutASentPacket(-completion.result) {
                    errors.count(.underlayReceive, code: -completion.result)
                } else if completion.result != -ENOBUFS {
                    failed(.underlayReceive, completion.result)
                }
            case .send, .resend:
                sendCompleted(completion, &sink)
            case .write:
                let frame = Int(truncatingIfNeeded: completion.userData & 0xFFFF_FFFF)
                if result >= 0 {
                    sink.delivered(frame: frame)
                } else {
                    errors.count(.tunWrite, code: -completion.result)
                    if isTunGone(completion.result) { state = .tunGone }
                    if sink.refused(frame: frame, code: -completion.result) { continue }
                }
                forget(frame: frame)
            case .tunPoll:
                isPollArmed = completion.hasMore
                burstIsDry = false
                if result < 0 { failed(.tunRead, completion.result) }
                // POLLERR without data: the device is gone.
                if result > 0, result & Int(POLLERR) != 0, isTunGone(-EBADFD) { state = .tunGone }
            case .wakeUp:
                wakeUp.lower()
                awaitWakeUp()
                if state == .running { state = .wokenUp }
            case .retryTimer:
                isRetryArmed = false
            }
        }
        return state
    }

    @inline(__always)
    private mutating func readCompleted(
        _ completion: Ring.Completion, _ sink: inout some PacketSink & ~Copyable, _ state: inout EngineState
    ) {
        if reading != .multishot {
            readsInFlight &-= 1
        } else if !completion.hasMore {
            isReadArmed = false
        }
        if completion.result >= 0 {
            let length = Int(completion.result)
            tunBuffers.took()
            arrivals &+= 1
            if length >= Self.bulk { broughtBulk = true }
            sink.fromTun(offset: completion.buffer &* PacketMemory.slotSize, length: length)
            return
        }
        switch completion.result {
        case -EAGAIN:
            burstIsDry = true
        case -ENOBUFS:
            break  // every slot is in use: armed again when one comes back
        default:
            if isTunGone(completion.result) {
                state = .tunGone
            } else {
                failed(.tunRead, completion.result)
            }
        }
    }

    @inline(__always)
    private mutating func sendCompleted(_ completion: Ring.Completion, _ sink: inout some PacketSink & ~Copyable) {
        let frame = Int(truncatingIfNeeded: completion.userData & 0x7FFF_FFFF)
        if completion.result >= 0 {
            sink.sent(frame: frame)
        } else if sendFailed(completion, frame, &sink) {
            return
        }
        unsafe releaseSlots(of: sends.vectors(of: frame))
        sends.complete()
    }

    /// - Returns: whether the frame is on its way again.
    private mutating func sendFailed(
        _ completion: Ring.Completion, _ frame: Int, _ sink: inout some PacketSink & ~Copyable
    ) -> Bool {
        let code = -completion.result
        let isFirstTry = completion.userData >> 32 == Request.send.rawValue
        let inner: InnerProtocol = completion.userData & UInt64(Self.carriesIPv4) == 0 ? .ipv6 : .ipv4
        let isTooLong = code == EMSGSIZE && isFirstTry
        let destination = UInt32(bigEndian: unsafe sends.name(of: frame).pointee.sin_addr.s_addr)
        let pathMTU = isTooLong ? self.pathMTU(to: destination, carrying: inner) : 0
        if !isTooLong { errors.count(.underlaySend, code: code) }
        switch sink.unsent(frame: frame, code: code, pathMTU: pathMTU, memory: &memory) {
        case .none: break
        case .reply(let offset, let length): reply(offset: offset, length: length)
        case .fragment:
            if !isFirstTry { break }
            // Fragments are a weakness: a few forged ones fill the receiver's reassembly, and no whole packet comes of any. So
            // none is made because of an ICMP error, which anybody can send.
            let length = unsafe sends.vectors(of: frame).reduce(Self.headerLength) { unsafe $0 + $1.iov_len }
            let isRouteTooNarrow = (underlay.routeMTU(to: destination, carrying: inner) ?? .max) < length
            let socket = isRouteTooNarrow ? File.fragmentingSender(inner) : File.wholeSender(inner)
            let entry = unsafe ring.next()
            unsafe io_uring_prep_sendmsg(entry, socket, sends.message(of: frame), 0)
            unsafe finish(entry, .resend, frame)
            return true
        }
        return false
    }

    /// With EMSGSIZE the kernel leaves a note of the path MTU in the sender's error queue. There is one for each failed send, in
    /// their order, so the next one is this send's; where the queue had no room for all, the last one may serve.
    private mutating func pathMTU(to destination: UInt32, carrying inner: InnerProtocol) -> Int {
        while let error = underlay.sockets(carrying: inner).flatMap({ QueuedError.next(of: $0.sender) }) {
            if error.code != EMSGSIZE || error.origin != .local { continue }
            narrowPath = (error.destination, Int(error.info))
            if error.destination == destination { break }
        }
        return narrowPath.destination == destination ? narrowPath.mtu : 0
    }

    @discardableResult
    public mutating func reply(offset: Int, length: Int) -> Bool {
        precondition(offset >= 0 && length >= 0 && offset + length <= memory.byteCount)
        if unsafe write(tun.descriptor.rawValue, memory.base + offset, length) >= 0 { return true }
        errors.count(.tunWrite, code: errno)
        return false
    }

    /// A device whose last route to us is closed answers EBADFD, and EFAULT to a read that was waiting: the kernel has no
    /// clearer word, so the device is asked for itself.
    private func isTunGone(_ result: Int32) -> Bool {
        [-EBADFD, -EFAULT, -ENODEV].contains(result) && !TunDevice.exists(behind: tun.descriptor.rawValue)
    }

    /// A connected receiver hears of the ICMP errors about what was sent to its remote (`raw_err`), and each ends the receive. They say
    /// nothing about receiving, which goes on at once; what they do say, the guardian hears.
    private static func isAboutASentPacket(_ code: Int32) -> Bool {
        switch code {
        case ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EMSGSIZE, ENETUNREACH, ENONET, ENOPROTOOPT, EPROTO: true
        default: false
        }
    }

    /// Counts a failure of a source and leaves all sources that ended alone for a while.
    private mutating func failed(_ operation: PacketOperation, _ result: Int32) {
        errors.count(operation, code: -result)
        if isRetryArmed { return }
        isRetryArmed = true
        let entry = unsafe ring.next()
        unsafe io_uring_prep_timeout(entry, retryDelay.pointer, 0, 0)
        unsafe entry.pointee.user_data = Request.retryTimer.rawValue << 32
    }

    /// Under load, the turns are made longer on purpose: a wait for as many packets as the last turn brought costs one wake-up
    /// for all of them, and what comes together is merged together. An idle tunnel never waits for a second packet, and neither
    /// does one that reads super-packets: those are gathered already.
    private func wait() throws(SystemError) {
        if busyPoll > 0 { return try lookThenWait() }
        if broughtBulk || arrivals < Self.fewArrivals { return try ring.submitAndWait() }
        // What was queued now completes as it is submitted, or hardly later.
        let queued = sends.inFlight + writes.inFlight
        try ring.submitAndWait(for: queued + min(arrivals, Self.mostAwaited), nanoseconds: Self.longestGathering)
    }

    /// Looks for completions until `busyPoll` is over, and only then sleeps.
    private func lookThenWait() throws(SystemError) {
        let end = Self.nanoseconds + busyPoll
        repeat {
            try ring.submitAndLook()
            if ring.hasCompletion { return }
        } while Self.nanoseconds < end
        try ring.submitAndWait()
    }

    /// Of the monotonic clock.
    private static var nanoseconds: Int {
        var now = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &now)
        return now.tv_sec &* 1_000_000_000 &+ now.tv_nsec
    }

    // MARK: Sources

    /// Starts again the sources that ended, as far as there are slots for them.
    @inline(__always)
    private mutating func arm() {
        if isRetryArmed { return }
        while idleReceivers != 0 && underlayBuffers.available > 0 { receive(from: idleReceivers.trailingZeroBitCount) }
        switch reading {
        case .multishot:
            if isReadArmed || tunBuffers.available == 0 { return }
            isReadArmed = true
            queueRead(tund_op_read_multishot)
        case .reads:
            while readsInFlight < min(Self.burstLength, tunBuffers.available) {
                readsInFlight &+= 1
                queueRead(UInt8(IORING_OP_READ.rawValue))
            }
        case .burst:
            if !isPollArmed {
                isPollArmed = true
                let entry = unsafe ring.next()
                unsafe io_uring_prep_poll_multishot(entry, File.tun, UInt32(POLLIN))
                unsafe finish(entry, .tunPoll)
            }
            if burstIsDry || readsInFlight > 0 { return }
            for _ in 0..<min(Self.burstLength, tunBuffers.available) {
                readsInFlight &+= 1
                queueRead(UInt8(IORING_OP_READ.rawValue))
            }
        }
    }

    private mutating func receive(from number: Int) {
        idleReceivers &= ~(1 << UInt32(number))
        let entry = unsafe ring.next()
        unsafe io_uring_prep_recv_multishot(entry, File.receivers + Int32(number), nil, 0, 0)
        unsafe selectBuffer(from: underlayBuffers.group, entry)
        unsafe finish(entry, .receive, number)
    }

    @inline(__always)
    private mutating func queueRead(_ operation: UInt8) {
        let entry = unsafe ring.next()
        unsafe io_uring_prep_rw(Int32(operation), entry, File.tun, nil, 0, 0)
        if operation != tund_op_read_multishot { unsafe entry.pointee.len = UInt32(PacketMemory.slotSize) }
        unsafe selectBuffer(from: tunBuffers.group, entry)
        unsafe finish(entry, .tunRead)
    }

    private mutating func awaitWakeUp() {
        let entry = unsafe ring.next()
        unsafe io_uring_prep_poll_add(entry, File.wakeUp, UInt32(POLLIN))
        unsafe finish(entry, .wakeUp)
    }

    // MARK: Frames

    public var canSend: Bool { sends.inFlight == 0 }
    public var canDeliver: Bool { writes.inFlight == 0 }

    public var sendCapacity: (frames: Int, slices: Int) { (sends.capacity, sends.vectorCapacity) }

    @inline(__always)
    public mutating func addSendSlice(offset: Int, length: Int) {
        references.retain(at: offset)
        unsafe sends.addSlice(memory.base + offset, length: length)
    }

    @inline(__always)
    public mutating func addDeliverySlice(offset: Int, length: Int) {
        references.retain(at: offset)
        unsafe writes.addSlice(memory.base + offset, length: length)
    }

    public mutating func deliverAtOnce() -> Bool {
        let frame = writes.endFrame()
        let vectors = unsafe writes.vectors(of: frame)
        let isTaken = unsafe writev(tun.descriptor.rawValue, vectors.baseAddress, Int32(vectors.count)) >= 0
        if !isTaken { errors.count(.tunWrite, code: errno) }
        forget(frame: frame)
        return isTaken
    }

    public mutating func forget(frame: Int) {
        unsafe releaseSlots(of: writes.vectors(of: frame))
        writes.complete()
    }

    @inline(__always)
    public mutating func send(
        to destination: UInt32, ttl: UInt8, tos: UInt8, dontFragment: Bool, carrying inner: InnerProtocol
    ) {
        let frame = sends.endFrame()
        let message = unsafe sends.message(of: frame)
        unsafe underlay.address(
            message, name: sends.name(of: frame), control: sends.control(of: frame), destination: destination, ttl: ttl,
            tos: tos)
        let entry = unsafe ring.next()
        unsafe io_uring_prep_sendmsg(entry, dontFragment ? File.sender(inner) : File.fragmentingSender(inner), message, 0)
        unsafe finish(entry, .send, inner == .ipv6 ? frame : frame | Self.carriesIPv4)
    }

    @inline(__always)
    public mutating func deliver() {
        let frame = writes.endFrame()
        let vectors = unsafe writes.vectors(of: frame)
        let entry = unsafe ring.next()
        if vectors.count == 1 {
            unsafe io_uring_prep_write(entry, File.tun, vectors[0].iov_base, UInt32(vectors[0].iov_len), 0)
        } else {
            unsafe io_uring_prep_writev(entry, File.tun, vectors.baseAddress, UInt32(vectors.count), 0)
        }
        unsafe finish(entry, .write, frame)
    }

    @inline(__always)
    public mutating func release(offset: Int) { recycle(PacketMemory.slot(at: offset)) }

    @inline(__always)
    private mutating func releaseSlots(of vectors: UnsafeMutableBufferPointer<iovec>) {
        for index in 0..<vectors.count {
            guard let base = unsafe vectors[index].iov_base else { continue }
            if let slot = unsafe references.release(at: base - memory.base) { recycle(slot) }
        }
    }

    @inline(__always)
    private mutating func recycle(_ slot: Int) {
        if slot < Self.tunSlots {
            tunBuffers.add(slot, of: memory)
        } else {
            underlayBuffers.add(slot, of: memory)
        }
    }

    // MARK: Submissions

    /// A prepared submission's last fields: the preparing functions clear them.
    @inline(__always)
    private func finish(_ entry: UnsafeMutablePointer<io_uring_sqe>, _ request: Request, _ frame: Int = 0) {
        unsafe entry.pointee.flags |= tund_sqe_fixed_file
        unsafe entry.pointee.user_data = request.rawValue << 32 | UInt64(truncatingIfNeeded: frame)
    }

    @inline(__always)
    private func selectBuffer(from group: UInt16, _ entry: UnsafeMutablePointer<io_uring_sqe>) {
        unsafe entry.pointee.flags |= tund_sqe_buffer_select
        unsafe entry.pointee.buf_group = group
    }
}

/// A time span at an address that stays, for the kernel to read.
@safe
private struct TimeSpec: ~Copyable, @unchecked Sendable {
    let pointer: UnsafeMutablePointer<__kernel_timespec>

    init(nanoseconds: Int64) {
        unsafe pointer = .allocate(capacity: 1)
        unsafe pointer.initialize(
            to: __kernel_timespec(tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000))
    }

    deinit { unsafe pointer.deallocate() }
}

/// How many frames use each slot: several may be cut from one packet, and several packets may make one frame.
@safe
private struct SlotReferences: ~Copyable, @unchecked Sendable {
    private let counts: UnsafeMutablePointer<UInt32>
    private let count: Int

    init(count: Int) {
        self.count = count
        unsafe counts = .allocate(capacity: count)
        unsafe counts.initialize(repeating: 0, count: count)
    }

    deinit { unsafe counts.deallocate() }

    /// What lies behind the slots, in the scratch memory, is used by nobody else.
    @inline(__always)
    func retain(at offset: Int) {
        let slot = PacketMemory.slot(at: offset)
        if slot < count { unsafe counts[slot] &+= 1 }
    }

    /// The slot, if that was its last use.
    @inline(__always)
    func release(at offset: Int) -> Int? {
        let slot = PacketMemory.slot(at: offset)
        if slot >= count { return nil }
        unsafe counts[slot] &-= 1
        return unsafe counts[slot] == 0 ? slot : nil
    }
}
