internal import Glibc
internal import TunnelCore

/// A tunnel interface of the kernel's own that handles protocol 41 or 4 (`ip link add type sit`, or `ipip`).
struct KernelTunnel: Equatable, Sendable {
    let name: String
    let isUp: Bool
    let mode: TunnelMode
    /// 0.0.0.0 is any.
    let local: IPv4Address
    let remote: IPv4Address
    /// What it takes packets from: an interface's index, or 0 for any.
    let device: Int32

    /// Whether it would take a packet of a claim's (net/ipv6/sit.c `ipip6_tunnel_lookup`). It does so besides the tunnel's socket,
    /// not in its place.
    func takes(_ claim: TunnelClaim, deviceIndex: Int32?) -> Bool {
        isUp && mode.overlaps(claim.mode) && (local == .any || local == claim.local)
            && (remote == .any || claim.peers.contains(remote))
            && (device == 0 || deviceIndex == nil || device == deviceIndex)
    }

    /// - Throws: if one of `tunnels` would take what is the tunnel's own.
    static func check(_ tunnels: [KernelTunnel], _ claims: [TunnelClaim], deviceIndex: Int32?) throws(ControlError) {
        for tunnel in tunnels {
            guard let claim = claims.first(where: { tunnel.takes($0, deviceIndex: deviceIndex) }) else { continue }
            let name = tunnel.name
            throw ControlError(
                "use \(claim.local) as the tunnel's own address",
                reason: """
                    the kernel's \(name) (local \(any(tunnel.local)), remote \(any(tunnel.remote))) takes the same packets, so each \
                    would be delivered twice
                    """,
                remedy: "ip link set \(name) down" + (name == "sit0" ? "" : ", or ip link del \(name)"))
        }
    }

    private static func any(_ address: IPv4Address) -> String { address == .any ? "any" : "\(address)" }

    /// The kernel's handler of protocol 41 (net/ipv4/tunnel4.c), which sit, ipip and others bring along, sees each packet beside
    /// our sockets. What no interface of its own takes, it answers with "port unreachable".
    static func warnings() -> [String] {
        let root = "/sys/module"
        guard let module = ["tunnel4", "sit"].first(where: { unsafe access("\(root)/\($0)", F_OK) == 0 }) else { return [] }
        let users = names(in: "\(root)/\(module)/holders").sorted()
        return [
            """
            the kernel's \(module) module is loaded: it answers the tunnel's packets with ICMP port unreachable although they \
            arrive, and their senders may give up (rmmod \((users + [module]).joined(separator: " ")), or drop what it answers: nft \
            add rule ip filter output icmp type destination-unreachable icmp code port-unreachable drop)
            """
        ]
    }

    private static func names(in path: String) -> [String] {
        guard let directory = unsafe opendir(path) else { return [] }
        defer { unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names
    }
}
