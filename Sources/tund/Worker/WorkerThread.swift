internal import CLinux
internal import Glibc
internal import RingIO
internal import Synchronization
internal import TunnelCore

/// A worker on a thread of its own: started once, joined once.
final class WorkerThread<Engine: PacketEngine & ~Copyable & Sendable>: @unchecked Sendable {
    let index: Int
    let page: CounterPage
    let errors: ErrorTable
    private let mailbox: Mailbox
    private let finished: WakeUp
    /// The processor it stays on; nil leaves that to the scheduler.
    private let processor: Int?
    // Handed over by starting and by joining the thread, which order all accesses.
    private var worker: Worker<Engine>?
    private var exit: WorkerExit?
    private var thread: pthread_t?

    /// - Parameters:
    ///   - wakeUp: what the engine was made with.
    ///   - finished: raised when the loop has ended, for whatever reason.
    ///   - workers: how many there are in all.
    init(
        index: Int, of workers: Int, engine: consuming Engine, policy: TunnelPolicy, merges: Bool, errors: ErrorTable,
        softErrors: SoftErrors?, witness: (any MergeWitness)?, cutsUDP: Bool, wakeUp: WakeUp, finished: WakeUp, processor: Int?
    ) {
        self.index = index
        self.errors = errors
        mailbox = Mailbox(wakeUp)
        self.finished = finished
        self.processor = processor
        page = CounterPage()
        worker = Worker(
            engine: engine, policy: policy, merges: merges, mailbox: mailbox, page: page, softErrors: softErrors,
            witness: witness, cutsUDP: cutsUDP, workers: workers)
    }

    func start() throws(SystemError) { thread = try Thread.start { self.threadMain() } }

    /// Asks the loop to end.
    func stop() { mailbox.stop() }

    /// The loop goes by `policy` from its next turn on, or from its start.
    func adopt(_ policy: TunnelPolicy) {
        if thread == nil { worker?.adopt(policy) } else { mailbox.post(policy) }
    }

    /// Waits until it does, at most a tenth of a second.
    func waitUntilAdopted() {
        for _ in 0..<1000 where !mailbox.isTaken { usleep(100) }
    }

    /// Waits for the thread's end and closes its queue and sockets.
    func join() -> WorkerExit {
        if let thread {
            pthread_join(thread, nil)
            self.thread = nil
        } else {
            worker?.engine.finish()  // lets go of the TUN
        }
        worker = nil
        return exit ?? .stopped
    }

    private func threadMain() {
        unsafe pthread_setname_np(pthread_self(), "tund-worker-\(index)")
        if let processor { Processors.pinCurrentThread(to: processor) }
        exit = worker!.run()
        finished.raise()
    }
}
