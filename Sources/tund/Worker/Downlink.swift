internal import RingIO
internal import TunnelCore

extension Worker where Engine: ~Copyable {
    /// Underlay -> classify -> source checks -> decapsulate -> TUN, for all packets that wait.
    mutating func moveDownlink() {
        frames.removeAll()
        var memory = engine.memory.mutableBytes
        policy.decapsulate(traffic.downlink, in: &memory, into: &frames, counters: &traffic.counters)
        traffic.downlink.removeAll()
        releaseDropped()
        for index in 0..<frames.frames.count {
            addSlices(of: frames.frames[index])
            engine.deliver()
        }
    }
}
