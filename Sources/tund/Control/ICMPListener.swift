internal import RingIO
internal import TunnelCore

/// Hears the ICMPv4 errors about the tunnel's packets and tells the inner sources what they mean.
struct ICMPListener: ~Copyable {
    /// One for each protocol that the tunnel speaks.
    private let guardians: [RawListener]
    private let tun: TunWriter
    var policy: TunnelPolicy { didSet { answers.source = policy.errorSource } }
    private let softErrors: SoftErrors?
    /// A slot for a quote, and room for an answer.
    private var memory: PacketMemory
    private var answers: Answers
    /// Of the answers.
    private(set) var counters = Counters()
    /// Errors heard, by type and code.
    private(set) var heard: [ICMPKind: UInt64] = [:]

    init(
        _ guardians: [RawListener], tun: consuming TunWriter, policy: TunnelPolicy, softErrors: SoftErrors?
    ) throws(SystemError) {
        self.guardians = guardians
        self.tun = tun
        self.policy = policy
        self.softErrors = softErrors
        memory = try PacketMemory(slotCount: 1, scratch: ICMPv6Error.longest)
        answers = Answers(from: policy.errorSource, room: memory.scratch.lowerBound)
    }

    /// To be polled for POLLERR.
    var rawDescriptors: [Int32] { guardians.flatMap(\.rawDescriptors) }

    /// Errors taken in a tenth of a second. Anybody can send them, and as many as he likes; the rest of the control thread's work
    /// must go on, and at no great cost.
    private static let (most, slice) = (256, 100)
    private var left = most
    /// When there are as many again, in milliseconds of the clock.
    private var sliceEnd = 0

    /// Milliseconds for which not to poll; 0 where listening goes on.
    var pause: Int { left > 0 ? 0 : max(0, sliceEnd - Clock.milliseconds) }

    /// Empties a guardian's error queue; in a storm, a part of it.
    mutating func listen(to rawDescriptor: Int32) {
        let now = Clock.milliseconds
        if now >= sliceEnd { (left, sliceEnd) = (Self.most, now + Self.slice) }
        while left > 0 {
            left -= 1
            guard let error = QueuedError.next(of: rawDescriptor, quoteInto: 0, of: &memory) else { return }
            guard case .icmp(let type, let code) = error.origin else { continue }
            heard[ICMPKind(type: type, code: code), default: 0] += 1
            let translation = policy.translate(
                type: type, code: code, quote: Slice(offset: 0, length: error.quoteLength),
                extensionOffset: error.extensionOffset, in: memory.bytes)
            switch translation {
            case .ignore: break
            case .remember: softErrors?.add(at: Clock.nanoseconds)
            case .answer(let error, let packet, let peer):
                if let made = answers.make(error, about: packet, peer: peer, in: &memory, counters: &counters) {
                    tun.write(offset: Int(made.offset), length: Int(made.length), of: memory)
                }
            }
        }
    }
}
