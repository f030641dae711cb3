internal import RingIO
internal import TunnelCore

extension Worker where Engine: ~Copyable {
    /// Underlay -> classify -> source checks -> decapsulate -> merge -> TUN, for all packets that wait.
    mutating func moveDownlink() {
        traffic.deliveries.removeAll()
        traffic.firstRetry = .max
        traffic.retryIsTCP.removeAll()
        var memory = engine.memory.mutableBytes
        policy.decapsulate(
            traffic.downlink, in: &memory, merge: &merge, witness: witness, into: &traffic.deliveries, counters: &traffic.counters
        )
        traffic.downlink.removeAll()
        for index in 0..<traffic.deliveries.dropped.count {
            engine.release(offset: Int(traffic.deliveries.dropped[index].offset))
        }
        if traffic.refusedMerging.udp && traffic.hasMergedDatagrams { return deliverAtOnce() }
        deliver(from: 0)
    }

    /// Some kernels agree to take merged packets and then refuse one; before Linux 6.2 all refuse merged UDP. Its packets go again
    /// one by one, and if the TUN takes them so, no more of that protocol are merged for a while.
    mutating func retryUnmerged() {
        let first = traffic.deliveries.frames.count
        traffic.firstRetry = min(traffic.firstRetry, first)
        for index in 0..<traffic.refusals.count {
            let frame = traffic.deliveries.frames[Int(traffic.refusals[index])]
            if frame.isMergedDatagram {
                if cut(frame) { traffic.refuseMerging(isTCP: false) }
                continue
            }
            var memory = engine.memory.mutableBytes
            let isTCP = ReceiveMerge.unmerge(frame, in: &memory, into: &traffic.deliveries)
            for _ in 0..<frame.packetCount { traffic.retryIsTCP.append(isTCP) }
        }
        deliver(from: first)
        // Only now, when the new frames hold the slots.
        for index in 0..<traffic.refusals.count { engine.forget(frame: Int(traffic.refusals[index])) }
        traffic.refusals.removeAll()
    }

    /// A batch with merged datagrams, for a TUN that does not cut them: one frame after the other, in their order.
    private mutating func deliverAtOnce() {
        for index in 0..<traffic.deliveries.frames.count {
            let frame = traffic.deliveries.frames[index]
            if frame.isMergedDatagram {
                cut(frame)
                engine.release(offset: Int(traffic.deliveries.slices[Int(frame.firstSlice)].offset))
                continue
            }
            addSlices(of: frame)
            if engine.deliverAtOnce() { traffic.countDelivery(frame) }
        }
        traffic.deliveries.removeAll()
    }

    /// - Returns: whether the TUN took any of it.
    @discardableResult
    private mutating func cut(_ frame: Frame) -> Bool {
        let slice = traffic.deliveries.slices[Int(frame.firstSlice)]
        guard var cutter = DatagramCutter(slice, in: engine.memory.bytes) else { return false }
        var isTaken = false
        while true {
            var memory = engine.memory.mutableBytes
            guard let packet = cutter.next(in: &memory) else { return isTaken }
            // At once: the next one's headers go where the end of this one is.
            guard engine.reply(offset: Int(packet.offset), length: Int(packet.length)) else { continue }
            isTaken = true
            traffic.counters.downlinkPackets &+= 1
            traffic.counters.downlinkBytes &+= UInt64(Int(packet.length) - VirtioNetHeader.length)
        }
    }

    private mutating func deliver(from first: Int) {
        for index in first..<traffic.deliveries.frames.count {
            addSlices(of: traffic.deliveries.frames[index])
            engine.deliver()
        }
    }

    @inline(__always)
    private mutating func addSlices(of frame: Frame) {
        for index in Int(frame.firstSlice)..<Int(frame.firstSlice &+ frame.sliceCount) {
            let slice = traffic.deliveries.slices[index]
            engine.addDeliverySlice(offset: Int(slice.offset), length: Int(slice.length))
        }
    }
}
