internal import Glibc
internal import TunnelCore

/// What a tunnel says about the packets that are its own, so that a second one for the same packets does not start: each would
/// deliver them. Several tunnels may share a local address, as long as their peers differ.
///
/// A running tunnel says it by the name of a Unix socket in the abstract namespace (`StandingClaim`): those belong to a network
/// namespace, as the packets do, and end with the process, however it ends.
struct TunnelClaim: Equatable, Sendable {
    let mode: TunnelMode
    let local: IPv4Address
    /// Where the packets come from.
    let peers: IPv4Prefix
    /// The index of the `--dev` interface: it may have several names, and others later.
    let device: Int32?

    /// What a tunnel with this configuration takes.
    static func claims(
        of configuration: TunnelConfiguration, local: IPv4Address, device: Int32?
    ) -> [TunnelClaim] {
        let peers: [IPv4Prefix]
        if let remote = configuration.remote {
            peers = [IPv4Prefix(masking: remote, length: 32)]
        } else if configuration.takesCompatible || configuration.isatap != nil {
            peers = [IPv4Prefix(masking: .any, length: 0)]
        } else {
            let domain = configuration.domain.map { [$0.relayPrefix] } ?? []
            let others = configuration.relays + configuration.routes.map(\.endpoint)
            peers = others.reduce(into: domain) { peers, other in
                if !peers.contains(where: { $0.contains(other) }) { peers.append(IPv4Prefix(masking: other, length: 32)) }
            }
        }
        return peers.map { TunnelClaim(mode: configuration.mode, local: local, peers: $0, device: device) }
    }

    /// Whether a packet can belong to both.
    func overlaps(_ other: TunnelClaim) -> Bool {
        mode.overlaps(other.mode) && local == other.local
            && (peers.contains(other.peers.address) || other.peers.contains(peers.address))
            && (device == nil || other.device == nil || device == other.device)
    }

    // MARK: Conflicts

    /// - Throws: if one of `others` overlaps.
    static func check(_ claims: [TunnelClaim], against others: [TunnelClaim]) throws(ControlError) {
        for claim in claims {
            guard let other = others.first(where: claim.overlaps) else { continue }
            throw conflict(claim, peers: other.peers)
        }
    }

    private static func conflict(_ claim: TunnelClaim, peers: IPv4Prefix) -> ControlError {
        ControlError(
            "use \(claim.local) as the tunnel's own address",
            reason: """
                another tund here takes packets from \(peers.length == 32 ? "\(peers.address)" : "\(peers)") to it, too, so each would be \
                delivered twice
                """,
            remedy: "stop that one, or give this one another --local, --remote or --dev")
    }

    // MARK: Laid

    /// Claims that a tunnel lays, in the network namespace of the thread that makes this, for as long as it lives.
    final class Held {
        /// Of this tunnel among those that run or start. At random, so that nobody can bind its names in advance.
        let number = UInt64.random(in: 1 ... .max)
        private var sockets: [AbstractSocket] = []
        /// What others see.
        private(set) var laid: [TunnelClaim] = []
        var rawDescriptors: [Int32] { sockets.map(\.descriptor) }

        /// - Parameter count: how many there will be.
        init(room count: Int) throws(ControlError) {
            for _ in 0..<count { sockets.append(try AbstractSocket()) }
        }

        /// Once.
        func lay(_ claims: [TunnelClaim]) throws(ControlError) {
            precondition(claims.count == sockets.count, "room for other claims")
            for (claim, socket) in zip(claims, sockets) {
                let code = socket.take(StandingClaim(claim, number: number).name)
                if code != 0 { throw ControlError("claim the tunnel's packets", code: code) }
            }
            laid = claims
        }

        /// Others see no claim of this tunnel any more.
        func withdraw() { (sockets, laid) = ([], []) }
    }
}

extension TunnelMode {
    /// Whether a packet can belong to both.
    func overlaps(_ other: TunnelMode) -> Bool { carriesIPv6 && other.carriesIPv6 || carriesIPv4 && other.carriesIPv4 }
}
