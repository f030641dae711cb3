internal import Glibc
internal import TunnelCore

/// What a tunnel says about the packets that are its own, so that a second one for the same packets does not start: each would
/// deliver them. Several tunnels may share a local address, as long as their peers differ.
///
/// A running tunnel says it by the name of a Unix socket in the abstract namespace: those belong to a network namespace, as the
/// packets do, and end with the process, however it ends.
struct TunnelClaim: Equatable, Sendable {
    let mode: TunnelMode
    let local: IPv4Address
    /// Where the packets come from.
    let peers: IPv4Prefix
    /// `--dev`
    let device: String?

    /// What a tunnel with this configuration takes.
    static func claims(of configuration: TunnelConfiguration, local: IPv4Address) -> [TunnelClaim] {
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
        return peers.map { TunnelClaim(mode: configuration.mode, local: local, peers: $0, device: configuration.device) }
    }

    /// Whether a packet can belong to both.
    func overlaps(_ other: TunnelClaim) -> Bool {
        mode.overlaps(other.mode) && local == other.local
            && (peers.contains(other.peers.address) || other.peers.contains(peers.address))
            && (device == nil || other.device == nil || device == other.device)
    }

    // MARK: The name

    private static let title = "tund"

    /// `tund/ip6ip/10.0.0.1/10.0.0.0/8/eth0`
    var name: String { "\(Self.title)/\(mode.rawValue)/\(local)/\(peers)/\(device ?? "")" }

    init(mode: TunnelMode, local: IPv4Address, peers: IPv4Prefix, device: String?) {
        self.mode = mode
        self.local = local
        self.peers = peers
        self.device = device
    }

    /// nil: some other program's name.
    init?(name: Substring) {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 6, parts[0] == Self.title, let mode = TunnelMode(rawValue: parts[1]),
            let local = IPv4Address(parts[2]), let peers = try? IPv4Prefix(parsing: "\(parts[3])/\(parts[4])")
        else { return nil }
        self.init(mode: mode, local: local, peers: peers, device: parts[5].isEmpty ? nil : parts[5])
    }

    // MARK: Other tunnels

    /// Of the tunnels that run in the calling thread's network namespace.
    ///
    /// Any user can give a socket such a name, so it counts only beside a raw socket with that address, which takes
    /// CAP_NET_RAW.
    static func standing() -> [TunnelClaim] {
        let raw = Set(lines(of: "/proc/thread-self/net/raw").compactMap(localAddress(ofRawSocket:)))
        return lines(of: "/proc/thread-self/net/unix").compactMap { line in
            // An abstract name begins with a zero byte, which is shown as '@'.
            guard let start = line.firstIndex(of: "@") else { return nil }
            return TunnelClaim(name: line[line.index(after: start)...])
        }.filter { raw.contains($0.local) }
    }

    /// `  41: 0100000A:0029 00000000:0000 07 ...`: the address as it lies in memory, and the protocol. nil: not a
    /// tunnel's.
    static func localAddress(ofRawSocket line: String) -> IPv4Address? {
        let fields = line.split(separator: " ")
        guard fields.count > 1 else { return nil }
        let parts = fields[1].split(separator: ":")
        guard parts.count == 2, let address = UInt32(parts[0], radix: 16),
            let number = UInt8(parts[1], radix: 16), [ProtocolNumber.ipv6, ProtocolNumber.ipv4].contains(number)
        else { return nil }
        return IPv4Address(rawValue: UInt32(bigEndian: address))
    }

    private static func lines(of path: String) -> [String] {
        guard let file = unsafe fopen(path, "re") else { return [] }
        defer { unsafe fclose(file) }
        var lines: [String] = []
        var line = [CChar](repeating: 0, count: 512)
        while unsafe fgets(&line, Int32(line.count), file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            lines.append(String(text.prefix { $0 != "\n" }))
        }
        return lines
    }

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

    /// Lays the claims to the calling thread's network namespace, for as long as the result lives.
    final class Held {
        private var sockets: [Int32] = []

        init(_ claims: [TunnelClaim]) throws(ControlError) {
            for claim in claims {
                let opened = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
                guard opened >= 0 else { throw ControlError("claim the tunnel's packets", code: errno) }
                sockets.append(opened)
                var address = sockaddr_un()
                address.sun_family = sa_family_t(AF_UNIX)
                let name = Array(claim.name.utf8)
                unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0[1...].copyBytes(from: name) }
                let length = MemoryLayout<sa_family_t>.size + 1 + name.count
                // A name that is taken already is another user's prank, or was found by `check`.
                _ = unsafe withUnsafePointer(to: &address) {
                    unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(opened, $0, socklen_t(length)) }
                }
            }
        }

        deinit { for socket in sockets { close(socket) } }
    }
}

extension TunnelMode {
    /// Whether a packet can belong to both.
    func overlaps(_ other: TunnelMode) -> Bool { carriesIPv6 && other.carriesIPv6 || carriesIPv4 && other.carriesIPv4 }
}
