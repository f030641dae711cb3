internal import TunnelCore

/// What the command line says about the IPv4 side.
struct UnderlayQuery: Equatable, Sendable {
    /// `--dev`
    var device: String?
    /// `--fwmark`; 0 marks nothing.
    var mark: UInt32 = 0
    /// `--remote`
    var remote: IPv4Address?
    /// `--relay`, in the order given.
    var relays: [IPv4Address] = []
    /// R/m of the domain; nil without a domain. /0 confines nothing.
    var relayPrefix: IPv4Prefix?

    /// The hosts that the tunnel is known to send to.
    var endpoints: [IPv4Address] { (remote.map { [$0] } ?? []) + relays }

    /// R/m, if it leaves any host out.
    var confiningPrefix: IPv4Prefix? { relayPrefix.flatMap { $0.length > 0 ? $0 : nil } }
}
