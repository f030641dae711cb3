internal import RingIO
internal import TunnelCore

extension Worker where Engine: ~Copyable {
    /// TUN -> classify -> map to IPv4 -> encapsulate -> underlay, for all packets that wait.
    mutating func moveUplink() {
        frames.removeAll()
        policy.encapsulate(traffic.uplink, in: engine.memory.bytes, into: &frames, counters: &traffic.counters)
        traffic.uplink.removeAll()
        releaseDropped()
        for index in 0..<frames.frames.count {
            let frame = frames.frames[index]
            addSlices(of: frame)
            engine.send(to: frame.outer.destination.rawValue, ttl: frame.outer.ttl, tos: frame.outer.tos)
        }
    }
}
