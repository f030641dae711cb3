internal import CLiburing
internal import Glibc

/// An io_uring and the calls a worker makes on it. Made by one thread, it may be used by another, which then is the only one
/// (`enable`).
@safe
struct Ring: ~Copyable, @unchecked Sendable {
    /// liburing keeps pointers into the structure, so it needs an address of its own.
    private let ring: UnsafeMutablePointer<io_uring>

    /// - Parameters:
    ///   - entries: submissions that fit between two calls of the kernel.
    ///   - completions: completions that fit; more are kept by the kernel, at a price.
    init(entries: UInt32, completions: UInt32) throws(SystemError) {
        let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
        unsafe ring.initialize(to: io_uring())
        // Work of completed requests runs when this thread asks for completions, not in interrupts of it (6.1); one
        // submitter spares locks (6.0). A kernel that does not know them refuses with EINVAL: do without.
        let preferred = UInt32(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)
        var result: Int32 = -EINVAL
        for flags in [preferred, 0] where result == -EINVAL {
            var parameters = io_uring_params()
            parameters.flags = flags | UInt32(IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED)
            parameters.cq_entries = completions
            result = unsafe io_uring_queue_init_params(entries, ring, &parameters)
        }
        if result < 0 {
            unsafe ring.deallocate()
            throw SystemError("io_uring_setup", code: -result)
        }
        unsafe self.ring = ring
    }

    deinit {
        unsafe io_uring_queue_exit(ring)
        unsafe ring.deallocate()
    }

    /// To be called once, by the thread that will use the ring, before it submits anything.
    func enable() throws(SystemError) {
        if unsafe tund_enable_rings(ring) < 0 { throw SystemError("io_uring_register(ENABLE_RINGS)") }
    }

    /// Ends every request, waits until the last one is gone and lets go of the registered descriptors. Without it the kernel
    /// tears the ring down some time after the process, and keeps what it uses open until then: the TUN would still exist
    /// when a successor wants its name. By the thread that used the ring.
    func quiesce() {
        let cancel: UInt64 = .max
        let entry = unsafe next()
        unsafe io_uring_prep_cancel64(entry, 0, Int32(IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL))
        unsafe entry.pointee.user_data = cancel
        // Everything else that is cancelled completes before the cancellation reports, or soon after in task work.
        var isCancelled = false
        for _ in 0..<16 {
            var moment = __kernel_timespec(tv_sec: 0, tv_nsec: 1_000_000)
            var first: UnsafeMutablePointer<io_uring_cqe>?
            _ = unsafe io_uring_submit_and_wait_timeout(ring, &first, 1, &moment, nil)
            var taken = 0
            while let completion = takeCompletion() {
                taken += 1
                if completion.userData == cancel { isCancelled = true }
            }
            if isCancelled && taken == 0 { break }
        }
        unsafe io_uring_unregister_files(ring)
    }

    /// Whether the running kernel knows an operation.
    func supports(_ operation: UInt8) -> Bool {
        guard let probe = unsafe io_uring_get_probe_ring(ring) else { return false }
        defer { unsafe io_uring_free_probe(probe) }
        return unsafe io_uring_opcode_supported(probe, Int32(operation)) != 0
    }

    /// Makes descriptors known by their position: saves a look-up for each request.
    func register(_ descriptors: [Int32]) throws(SystemError) {
        let result = unsafe io_uring_register_files(ring, descriptors, UInt32(descriptors.count))
        if result < 0 { throw SystemError("io_uring_register(FILES)", code: -result) }
    }

    func register(bufferRing memory: UnsafeMutableRawPointer, entries: UInt32, group: UInt16) throws(SystemError) {
        var registration = io_uring_buf_reg()
        registration.ring_addr = UInt64(UInt(bitPattern: memory))
        registration.ring_entries = entries
        registration.bgid = group
        let result = unsafe io_uring_register_buf_ring(ring, &registration, 0)
        if result < 0 { throw SystemError("io_uring_register(PBUF_RING)", code: -result) }
    }

    /// An empty submission. Where the queue is full, what stands in it is submitted first.
    @inline(__always)
    func next() -> UnsafeMutablePointer<io_uring_sqe> {
        while true {
            if let entry = unsafe io_uring_get_sqe(ring) { return unsafe entry }
            unsafe io_uring_submit(ring)
        }
    }

    /// Submits everything queued and waits until there is a completion. An interrupted wait is no error.
    func submitAndWait() throws(SystemError) {
        try checkEnter(unsafe io_uring_submit_and_wait(ring, 1))
    }

    /// Time that is up and interruptions are no errors; with EAGAIN and EBUSY the kernel is out of memory for requests, or
    /// completions must be taken first.
    @inline(__always)
    private func checkEnter(_ result: Int32) throws(SystemError) {
        switch -result {
        case ETIME, EINTR, EAGAIN, EBUSY: return
        default: if result < 0 { throw SystemError("io_uring_enter", code: -result) }
        }
    }

    /// The same, but until there are `count` completions or the time is up.
    func submitAndWait(for count: Int, nanoseconds: Int64) throws(SystemError) {
        var patience = __kernel_timespec(tv_sec: 0, tv_nsec: nanoseconds)
        var first: UnsafeMutablePointer<io_uring_cqe>?
        let result = unsafe io_uring_submit_and_wait_timeout(ring, &first, UInt32(truncatingIfNeeded: count), &patience, nil)
        try checkEnter(result)
    }

    /// Submits everything queued and lets finished work complete, without waiting for any.
    func submitAndLook() throws(SystemError) {
        try checkEnter(unsafe io_uring_submit_and_get_events(ring))
    }

    /// Whether a completion waits to be taken.
    @inline(__always)
    var hasCompletion: Bool { unsafe io_uring_cq_ready(ring) > 0 }

    struct Completion {
        var userData: UInt64
        /// Not negative: the operation's result. Negative: an errno.
        var result: Int32
        var flags: UInt32

        /// A multishot request goes on.
        var hasMore: Bool { flags & UInt32(IORING_CQE_F_MORE) != 0 }
        /// The provided buffer that was filled.
        var buffer: Int { Int(flags >> tund_cqe_buffer_shift) }
    }

    /// Takes the oldest completion, if there is one.
    @inline(__always)
    func takeCompletion() -> Completion? {
        var entry: UnsafeMutablePointer<io_uring_cqe>?
        guard unsafe io_uring_peek_cqe(ring, &entry) == 0, let entry = unsafe entry else { return nil }
        let completion = unsafe Completion(
            userData: entry.pointee.user_data, result: entry.pointee.res, flags: entry.pointee.flags)
        unsafe io_uring_cqe_seen(ring, entry)
        return completion
    }
}
