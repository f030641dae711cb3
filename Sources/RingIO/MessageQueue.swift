internal import Glibc

/// The frames of one direction that are on their way to the kernel, as the structures it reads: they must stay where they
/// are until each frame is complete. A frame's gather list may have any number of slices.
///
/// A queue is filled, emptied, and only then filled again, so its room is handed out by counting.
@safe
struct MessageQueue: ~Copyable, @unchecked Sendable {
    /// Room for the control messages of one frame.
    static let controlSize = 48

    struct Entry {
        var firstVector: Int32
        var vectorCount: Int32
    }

    let capacity: Int
    let vectorCapacity: Int
    private(set) var count = 0
    private var vectorCount = 0
    /// Where the frame that is being put together begins.
    private var open = 0
    /// Frames not yet complete.
    private(set) var inFlight = 0

    private let entries: UnsafeMutablePointer<Entry>
    private let vectors: UnsafeMutablePointer<iovec>
    private let messages: UnsafeMutablePointer<msghdr>
    private let names: UnsafeMutablePointer<sockaddr_in>
    private let controls: UnsafeMutableRawPointer

    init(frames: Int, slices: Int) {
        capacity = frames
        vectorCapacity = slices
        unsafe entries = .allocate(capacity: frames)
        unsafe vectors = .allocate(capacity: slices)
        unsafe messages = .allocate(capacity: frames)
        unsafe messages.initialize(repeating: msghdr(), count: frames)
        unsafe names = .allocate(capacity: frames)
        unsafe controls = .allocate(byteCount: frames * Self.controlSize, alignment: 16)
    }

    deinit {
        unsafe entries.deallocate()
        unsafe vectors.deallocate()
        unsafe messages.deallocate()
        unsafe names.deallocate()
        unsafe controls.deallocate()
    }

    @inline(__always)
    mutating func addSlice(_ base: UnsafeMutableRawPointer, length: Int) {
        precondition(vectorCount < vectorCapacity, "more slices than the queue has room for")
        unsafe vectors[vectorCount] = unsafe iovec(iov_base: base, iov_len: length)
        vectorCount &+= 1
    }

    /// Ends the frame whose slices were added last and returns its number.
    @inline(__always)
    mutating func endFrame() -> Int {
        precondition(count < capacity, "more frames than the queue has room for")
        let frame = count
        unsafe entries[frame] = Entry(firstVector: Int32(open), vectorCount: Int32(vectorCount - open))
        unsafe messages[frame].msg_iov = vectors + open
        unsafe messages[frame].msg_iovlen = vectorCount - open
        open = vectorCount
        count &+= 1
        inFlight &+= 1
        return frame
    }

    /// The frame is done; after the last one the queue is empty.
    @inline(__always)
    mutating func complete() {
        inFlight &-= 1
        if inFlight == 0 {
            count = 0
            vectorCount = 0
            open = 0
        }
    }

    @inline(__always)
    func message(of frame: Int) -> UnsafeMutablePointer<msghdr> { unsafe messages + frame }
    @inline(__always)
    func name(of frame: Int) -> UnsafeMutablePointer<sockaddr_in> { unsafe names + frame }
    @inline(__always)
    func control(of frame: Int) -> UnsafeMutableRawPointer { unsafe controls + frame &* Self.controlSize }
    @inline(__always)
    func vectors(of frame: Int) -> UnsafeMutableBufferPointer<iovec> {
        let entry = unsafe entries[frame]
        return unsafe UnsafeMutableBufferPointer(start: vectors + Int(entry.firstVector), count: Int(entry.vectorCount))
    }
}
