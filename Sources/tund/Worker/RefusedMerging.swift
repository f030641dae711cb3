/// Of which protocols a TUN is given no merged packets, since it refused one.
struct RefusedMerging {
    /// After that it is tried again, in nanoseconds: a refusal costs the packets of one frame a second write, and what refused it
    /// may have been one kind of packet, or a setting of the TUN that was taken back.
    static var pause: UInt64 { 60_000_000_000 }

    private(set) var tcp = false
    private(set) var udp: Bool
    private let cutsUDP: Bool
    private var tcpUntil: UInt64 = 0
    private var udpUntil: UInt64 = 0

    /// - Parameter cutsUDP: false: the kernel is known not to (before Linux 6.2), and never will.
    init(cutsUDP: Bool) {
        self.cutsUDP = cutsUDP
        udp = !cutsUDP
    }

    /// - Parameter now: nanoseconds of the monotonic clock.
    /// - Returns: whether that is new.
    mutating func add(isTCP: Bool, at now: UInt64) -> Bool {
        if isTCP ? tcp : udp { return false }
        if isTCP { (tcp, tcpUntil) = (true, now &+ Self.pause) } else { (udp, udpUntil) = (true, now &+ Self.pause) }
        return true
    }

    /// Whether there is anything that `reconsider` may change.
    var isTemporary: Bool { tcp || udp && cutsUDP }

    mutating func reconsider(at now: UInt64) {
        if tcp && now >= tcpUntil { tcp = false }
        if udp && cutsUDP && now >= udpUntil { udp = false }
    }
}
