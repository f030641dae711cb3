internal import RingIO
internal import Synchronization
internal import TunnelCore

/// What the control thread has to say to one worker. The worker looks inside when it is woken up, between two batches; until
/// then it costs it nothing.
final class Mailbox: Sendable {
    struct Content {
        var stops = false
        /// The newest one: what came before it and was not taken is of no use any more.
        var policy: TunnelPolicy?
    }

    private let content = Mutex(Content())
    private let wakeUp: WakeUp

    /// - Parameter wakeUp: the engine's.
    init(_ wakeUp: WakeUp) { self.wakeUp = wakeUp }

    /// Asks the loop to end.
    func stop() {
        content.withLock { $0.stops = true }
        wakeUp.raise()
    }

    /// The worker goes by `policy` from its next turn on.
    func post(_ policy: TunnelPolicy) {
        content.withLock { $0.policy = policy }
        wakeUp.raise()
    }

    /// Whether the worker has taken the last policy.
    var isTaken: Bool { content.withLock { $0.policy == nil } }

    /// By the worker.
    func take() -> Content {
        content.withLock { content in
            defer { content.policy = nil }
            return content
        }
    }
}
