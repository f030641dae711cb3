internal import RingIO
internal import TunnelCore

/// How a worker's loop ended.
enum WorkerExit: Sendable {
    case stopped
    case tunGone
    case failed(SystemError)
}

/// One loop: turn after turn it lets the engine collect packets, runs both stages over what came, and queues what they made
/// of it. It shares nothing with other workers but the policy, which nobody changes.
struct Worker<Engine: PacketEngine & ~Copyable>: ~Copyable {
    var engine: Engine
    var traffic: Traffic
    var frames: FrameBatch
    let policy: TunnelPolicy
    let page: CounterPage

    init(engine: consuming Engine, policy: TunnelPolicy, page: CounterPage) {
        let slots = engine.memory.slotCount
        self.engine = engine
        traffic = Traffic(capacity: slots)
        frames = FrameBatch(frames: slots, slices: slots)
        self.policy = policy
        self.page = page
    }

    /// Until the engine is woken up, or cannot go on.
    mutating func run() -> WorkerExit {
        defer {
            engine.finish()
            page.publish(traffic.counters)
        }
        do throws(SystemError) {
            try engine.start()
            while true {
                switch try engine.turn(&traffic) {
                case .running: break
                case .wokenUp: return .stopped
                case .tunGone: return .tunGone
                }
                if engine.canSend && traffic.uplink.count > 0 { moveUplink() }
                if engine.canDeliver && traffic.downlink.count > 0 { moveDownlink() }
                page.publish(traffic.counters)
            }
        } catch {
            return .failed(error)
        }
    }

    /// Gives the slots of dropped packets back.
    @inline(__always)
    mutating func releaseDropped() {
        for index in 0..<frames.dropped.count { engine.release(offset: Int(frames.dropped[index].offset)) }
    }

    /// Hands a frame's gather list to the engine.
    @inline(__always)
    mutating func addSlices(of frame: Frame) {
        for index in Int(frame.firstSlice)..<Int(frame.firstSlice &+ frame.sliceCount) {
            let slice = frames.slices[index]
            engine.addSlice(offset: Int(slice.offset), length: Int(slice.length))
        }
    }
}
