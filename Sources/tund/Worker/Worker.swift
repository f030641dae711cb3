internal import RingIO
internal import TunnelCore

/// How a worker's loop ended.
enum WorkerExit: Sendable {
    case stopped
    case tunGone
    case failed(SystemError)
}

/// One loop: turn after turn it lets the engine collect packets, runs both stages over what came, and queues what they made
/// of it. It shares nothing with other workers but the policy, which nobody changes: a new one comes by the mailbox.
struct Worker<Engine: PacketEngine & ~Copyable>: ~Copyable {
    var engine: Engine
    var traffic: Traffic
    var merge: ReceiveMerge
    let merges: Bool
    var policy: TunnelPolicy
    let mailbox: Mailbox
    let page: CounterPage
    /// Only point to point.
    let softErrors: SoftErrors?
    /// Where the kernel lets the receivers take notes.
    let witness: (any MergeWitness)?

    /// - Parameters:
    ///   - cutsUDP: the TUN's kernel may be asked to.
    ///   - workers: how many there are in all.
    init(
        engine: consuming Engine, policy: TunnelPolicy, merges: Bool, mailbox: Mailbox, page: CounterPage,
        softErrors: SoftErrors? = nil, witness: (any MergeWitness)? = nil, cutsUDP: Bool = true,
        workers: Int = 1
    ) {
        let slots = engine.memory.slotCount
        let scratch = engine.memory.scratch
        let room = scratch.upperBound - ICMPv6Error.longest
        traffic = Traffic(
            slots: slots, sends: engine.sendCapacity, scratch: scratch.lowerBound..<room,
            answers: Answers(from: policy.errorSource, room: room, threads: workers), cutsUDP: cutsUDP)
        merge = ReceiveMerge(capacity: slots, isOn: merges)
        self.merges = merges
        self.engine = engine
        self.policy = policy
        self.mailbox = mailbox
        self.page = page
        self.softErrors = softErrors
        self.witness = witness
    }

    /// Between two batches.
    mutating func adopt(_ policy: TunnelPolicy) {
        self.policy = policy
        traffic.answers.source = policy.errorSource
    }

    /// Until the mailbox says so, or the engine cannot go on.
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
                case .wokenUp:
                    let news = mailbox.take()
                    if news.stops { return .stopped }
                    if let policy = news.policy { adopt(policy) }
                case .tunGone: return .tunGone
                }
                if traffic.refusals.count > 0 { retryUnmerged() }
                if traffic.refusedMerging.isTemporary { traffic.refusedMerging.reconsider(at: Clock.nanoseconds) }
                merge.mergesTCP = merges && !traffic.refusedMerging.tcp
                merge.mergesUDP = merges && !traffic.refusedMerging.udp
                if engine.canSend && traffic.uplink.count > 0 { moveUplink() }
                if engine.canDeliver && traffic.downlink.count > 0 { moveDownlink() }
                page.publish(traffic.counters)
            }
        } catch {
            return .failed(error)
        }
    }
}
