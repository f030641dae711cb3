internal import ArgumentParser
internal import TunnelCore

/// The options that make a 6rd domain, in the kernel's words (`ip tunnel 6rd`).
struct DomainOptions: ParsableArguments {
    @Option(
        name: .customLong("6rd-prefix"),
        help: ArgumentHelp(
            "The domain's IPv6 prefix. (default: 2002::/16, which is 6to4)", valueName: "P/n"),
        transform: Parse.ipv6Prefix)
    var prefix: IPv6Prefix?

    @Option(
        name: .customLong("6rd-relay-prefix"),
        help: ArgumentHelp(
            "The IPv4 network of the domain's hosts; its bits are left out of their IPv6 prefixes. (default: 0.0.0.0/0)",
            valueName: "R/m"),
        transform: Parse.ipv4Prefix)
    var relayPrefix: IPv4Prefix?

    /// The domain these options describe.
    func domain() throws -> Domain {
        if let prefix, AddressPlan.isReserved(prefix) {
            throw ValidationError("--6rd-prefix: \(AddressPlanError.reserved(prefix))")
        }
        do {
            return try Domain(
                prefix: prefix ?? Domain.sixToFour.prefix, relayPrefix: relayPrefix ?? Domain.sixToFour.relayPrefix)
        } catch {
            throw ValidationError("--6rd-prefix with --6rd-relay-prefix: \(error)")
        }
    }
}
