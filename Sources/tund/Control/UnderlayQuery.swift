internal import TunnelCore

/// What the command line says about the IPv4 side.
struct UnderlayQuery: Equatable, Sendable {
    /// `--dev`
    var device: String?
    /// The index it had when it was found last: it may be renamed.
    var deviceIndex: Int32?
    /// `--fwmark`; 0 marks nothing.
    var mark: UInt32 = 0
    /// `--remote`
    var remote: IPv4Address?
    /// `--relay`, in the order given.
    var relays: [IPv4Address] = []
    /// R/m of the domain; nil without a domain. /0 confines nothing.
    var relayPrefix: IPv4Prefix?
    /// The index of the tunnel's own TUN, if that is in the same network namespace: what leads there does not lead out.
    var tun: Int32?

    /// The hosts that the tunnel is known to send to.
    var endpoints: [IPv4Address] { (remote.map { [$0] } ?? []) + relays }

    /// R/m, if it leaves any host out.
    var confiningPrefix: IPv4Prefix? { relayPrefix.flatMap { $0.length > 0 ? $0 : nil } }

    /// Addresses that stand for all peers nobody named: hosts of the domain's network, of which the first one counts that there is a route
    /// to; else the Internet.
    var outwardProbes: [IPv4Address] {
        guard let network = confiningPrefix else { return [Self.internetProbe] }
        let first = network.address.rawValue
        let last = first | UInt32.max >> UInt32(network.length)
        if network.length > 28 { return (first...last).reversed().map(IPv4Address.init(rawValue:)) }
        // In its middle and at its end this host's own address is rarer than at the beginning.
        let middle = first + (last - first) / 2 + 2
        return [middle, last - 1, first + 1, first + 2].map(IPv4Address.init(rawValue:))
    }

    /// An address that only a default route covers: a.root-servers.net, in use since 1993. Nothing is sent there. The
    /// documentation networks (RFC 5737) would not do: hosts that filter bogons have unreachable routes to them.
    static let internetProbe = IPv4Address(198, 41, 0, 4)
}
