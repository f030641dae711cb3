internal import ArgumentParser
internal import TunnelCore

struct MapCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "map",
        abstract: "Calculate addresses: which IPv6 prefix an IPv4 host owns, and which host owns an IPv6 address.",
        discussion: """
            Examples:
              tund map --6rd-prefix fd00::/32 10.0.0.1         the host's prefix: fd00:0:a00:1::/64
              tund map --6rd-prefix fd00::/32 fd00:0:a00:1::5  the address's host: 10.0.0.1
              tund map                                         this host's own prefix in 2002::/16
            """)

    @OptionGroup var domainOptions: DomainOptions

    @Argument(help: ArgumentHelp("An IPv4 or an IPv6 address; without one, this host's own.", valueName: "address"))
    var address: String?

    func validate() throws {
        _ = try domainOptions.domain()
        if let address, IPv4Address(address) == nil, IPv6Address(address) == nil {
            throw ValidationError("'\(address)' is neither an IPv4 nor an IPv6 address")
        }
    }

    func run() throws {
        let domain = try domainOptions.domain()
        if let address, let inner = IPv6Address(address) {
            guard domain.contains(inner) else { throw Failure("\(inner) is not in the domain \(domain.prefix)") }
            print(domain.host(embeddedIn: inner))
            return
        }
        let host: IPv4Address
        if let given = address.flatMap({ IPv4Address($0) }) {
            host = given
        } else {
            host = try Failure.wrap { () throws(ControlError) in
                try LocalAddress.find(UnderlayQuery(relayPrefix: domain.relayPrefix), over: Netlink())
            }
        }
        guard let prefix = domain.delegatedPrefix(of: host) else {
            throw Failure("\(host) is not in the domain's IPv4 network \(domain.relayPrefix) (--6rd-relay-prefix)")
        }
        print(prefix)
    }
}

/// An error of the run, not of the command line: exit code 1.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }

    static func wrap<Result: ~Copyable, Problem: Error>(_ body: () throws(Problem) -> Result) throws(Failure) -> Result {
        do { return try body() } catch { throw Failure("\(error)") }
    }
}
