internal import Glibc
internal import TunnelCore

/// Looks for others on this host who take the tunnel's packets, too: each would be delivered twice. What it looks at belongs to the
/// underlay's network namespace, where it is opened; it need not go there again.
final class Coexistence {
    private let netlink: Netlink
    private let names: UnixSocketNames
    private let rawSockets: TextFile

    /// Looks at the calling thread's network namespace.
    init() throws(ControlError) {
        netlink = try Netlink()
        names = UnixSocketNames()
        rawSockets = TextFile("/proc/thread-self/net/raw")
    }

    /// Whether the tunnel would have its packets for itself; to be asked before its sockets have their address.
    /// - Parameter own: what this tunnel has claimed already.
    /// - Throws: if somebody else takes them, too.
    func check(_ preparation: Preparation, own: TunnelClaim.Held? = nil) throws(ControlError) {
        let device = preparation.configuration.device == nil ? nil : preparation.path.interfaceIndex
        try KernelTunnel.check(try netlink.kernelTunnels(), preparation.claims, deviceIndex: device)
        try TunnelClaim.check(preparation.claims, against: rivals(of: preparation, own).map(\.claim))
    }

    /// The second look, once the claims are laid and the sockets are at work: tunnels that started at the same moment have not seen
    /// each other at the first one. One of them stays.
    /// - Parameter sockets: this tunnel's raw sockets.
    /// - Throws: if it is not this one.
    func settle(_ preparation: Preparation, _ held: TunnelClaim.Held, _ sockets: [Int32]) throws(ControlError) {
        var patience = 50
        while true {
            let rivals = rivals(of: preparation, held, sockets)
            switch StandingClaim.precedence(of: held.number, among: rivals) {
            case .alone: return
            case .wait where patience > 0:
                patience -= 1
                usleep(20_000)
            case .wait, .giveUp:
                held.withdraw()
                try TunnelClaim.check(preparation.claims, against: rivals.map(\.claim))
                return
            }
        }
    }

    /// Other tunnels' claims to the same packets.
    private func rivals(
        of preparation: Preparation, _ own: TunnelClaim.Held?, _ sockets: [Int32] = []
    ) -> [StandingClaim] {
        let own = own?.number
        let sockets = Set(sockets.compactMap(RawSocketOwner.inode(of:)))
        let owners = rawSockets.lines().compactMap(RawSocketOwner.init(line:)).filter { !sockets.contains($0.inode) }
        return StandingClaim.standing(names.all(beginningWith: StandingClaim.title), beside: owners).filter { standing in
            standing.number != own && preparation.claims.contains { $0.overlaps(standing.claim) }
        }
    }
}
