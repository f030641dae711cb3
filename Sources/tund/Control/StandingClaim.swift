internal import Glibc
internal import TunnelCore

/// A claim that a tunnel has laid, as the others of its network namespace see it.
struct StandingClaim: Equatable, Sendable {
    let claim: TunnelClaim
    /// The tunnel's, the same for all its claims. Of two that started together the lesser one stays.
    let number: UInt64

    init(_ claim: TunnelClaim, number: UInt64) {
        self.claim = claim
        self.number = number
    }

    // MARK: The name

    static let title = "tund/"

    /// `tund/ip6ip/10.0.0.1/10.0.0.0/8/2/9c0ffee`: the peers' prefix, the index of `--dev` or nothing, the number.
    var name: String {
        "\(Self.title)\(claim.mode.rawValue)/\(claim.local)/\(claim.peers)/\(claim.device.map { String($0) } ?? "")/\(String(number, radix: 16))"
    }

    /// Without a number it is 0, which stays against any other. nil: some other program's name.
    init?(name: String) {
        guard name.hasPrefix(Self.title) else { return nil }
        var parts = name.dropFirst(Self.title.count).split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        if parts.count == 5 { parts.append("0") }
        guard parts.count == 6, let mode = TunnelMode(rawValue: parts[0]), let local = IPv4Address(parts[1]),
            let peers = try? IPv4Prefix(parsing: "\(parts[2])/\(parts[3])"), let number = UInt64(parts[5], radix: 16)
        else { return nil }
        let device = Int32(parts[4])
        if device == nil && !parts[4].isEmpty { return nil }
        self.init(TunnelClaim(mode: mode, local: local, peers: peers, device: device), number: number)
    }

    // MARK: Who may lay one

    /// Any user can give a socket such a name, so it counts only where the same user has a tunnel's raw socket with that address,
    /// which takes CAP_NET_RAW. A name whose owner the kernel does not tell counts beside anybody's.
    static func standing(_ names: [UnixSocketName], beside sockets: [RawSocketOwner]) -> [StandingClaim] {
        let owners = Set(sockets.map(\.uid))
        return names.compactMap { name in
            // First, since others may have any number of names.
            if let uid = name.uid, !owners.contains(uid) { return nil }
            guard let standing = StandingClaim(name: name.name) else { return nil }
            let isBacked = sockets.contains { $0.local == standing.claim.local && (name.uid == nil || name.uid == $0.uid) }
            return isBacked ? standing : nil
        }
    }

    // MARK: Two that start together

    /// What a tunnel does that sees others with the same packets once its own claims are laid and its sockets are open.
    enum Precedence: Equatable { case alone, wait, giveUp }

    /// Of two that see each other the one with the greater number gives up, and the other one waits for that. If it waits in vain,
    /// the other one saw nobody: it was there first.
    static func precedence(of number: UInt64, among others: [StandingClaim]) -> Precedence {
        others.isEmpty ? .alone : others.allSatisfy { $0.number > number } ? .wait : .giveUp
    }
}

/// A raw socket of protocol 41 or 4.
struct RawSocketOwner: Equatable, Sendable {
    let local: IPv4Address
    let uid: UInt32
    /// Its number, unique among the sockets that are open.
    let inode: UInt64

    init(local: IPv4Address, uid: UInt32, inode: UInt64) {
        self.local = local
        self.uid = uid
        self.inode = inode
    }

    /// nil: not an open descriptor.
    static func inode(of descriptor: Int32) -> UInt64? {
        var status = stat()
        return unsafe fstat(descriptor, &status) == 0 ? UInt64(status.st_ino) : nil
    }

    /// `  41: 0100000A:0029 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 80934 ...`: the address as it lies in memory,
    /// the protocol, and after some others uid, timeout and inode (`raw_sock_seq_show` in net/ipv4/raw.c). nil: another protocol's.
    init?(line: String) {
        let fields = line.split(separator: " ")
        guard fields.count > 9, let uid = UInt32(fields[7]), let inode = UInt64(fields[9]) else { return nil }
        let parts = fields[1].split(separator: ":")
        guard parts.count == 2, let address = UInt32(parts[0], radix: 16),
            let number = UInt8(parts[1], radix: 16), [ProtocolNumber.ipv6, ProtocolNumber.ipv4].contains(number)
        else { return nil }
        self.init(local: IPv4Address(rawValue: UInt32(bigEndian: address)), uid: uid, inode: inode)
    }
}
