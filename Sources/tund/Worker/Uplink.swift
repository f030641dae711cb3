internal import RingIO
internal import TunnelCore

extension Worker where Engine: ~Copyable {
    /// TUN -> classify -> map to IPv4 -> split -> encapsulate -> underlay, for the packets that wait, or as many of them as
    /// make one batch.
    mutating func moveUplink() {
        traffic.sends.removeAll()
        var memory = engine.memory.mutableBytes
        var done = 0
        policy.encapsulate(traffic.uplink, from: &done, in: &memory, into: &traffic.sends, counters: &traffic.counters)
        traffic.uplink.removeFirst(done)
        for index in 0..<traffic.sends.dropped.count { engine.release(offset: Int(traffic.sends.dropped[index].offset)) }
        if let softErrors, !softErrors.isEmpty { answerSoftErrors(softErrors) }
        for index in 0..<traffic.sends.frames.count {
            let frame = traffic.sends.frames[index]
            for index in Int(frame.firstSlice)..<Int(frame.firstSlice &+ frame.sliceCount) {
                let slice = traffic.sends.slices[index]
                engine.addSendSlice(offset: Int(slice.offset), length: Int(slice.length))
            }
            let outer = frame.outer
            engine.send(
                to: outer.destination.rawValue, ttl: outer.ttl, tos: outer.tos, dontFragment: outer.dontFragment,
                carrying: outer.protocolNumber == ProtocolNumber.ipv6 ? .ipv6 : .ipv4)
        }
    }

    /// Their sources are told, and yet the packets are sent.
    private mutating func answerSoftErrors(_ softErrors: SoftErrors) {
        for frame in 0..<traffic.sends.frames.count where traffic.beginsPacket(frame) {
            if !softErrors.take(at: Clock.nanoseconds) { break }
            if let answer = traffic.answer(.addressUnreachable, about: frame, memory: &engine.memory) {
                engine.reply(offset: Int(answer.offset), length: Int(answer.length))
            }
        }
    }
}
