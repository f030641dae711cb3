internal import ArgumentParser
internal import Glibc
internal import Logging
internal import RingIO
internal import TunnelCore

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Carry IPv6 over IPv4, in the foreground, until SIGINT or SIGTERM.",
        discussion: #"""
            Without --remote every host of the domain is a peer, whose IPv6 prefix
            holds its IPv4 address. With --remote there is one peer, and any inner
            address.

            Examples:

            An overlay of all IPv4 hosts that run the same:
              tund run --6rd-prefix fd00::/32

            The same inside 10.0.0.0/16, where each host owns a /64:
              tund run --6rd-prefix fd00:0:a::/48 --6rd-relay-prefix 10.0.0.0/16

            The rest of the Internet through a border relay:
              tund run --6rd-prefix 2001:db8::/32 --relay 192.0.2.1 \
                  --default-route

            A tunnel broker's point-to-point tunnel:
              tund run he0 --remote 192.0.2.1 --address 2001:db8::2/64 \
                  --default-route

            Only say what would be done:
              tund run --6rd-prefix fd00::/32 --check

            SIGUSR1 prints the counters. Needs CAP_NET_ADMIN and CAP_NET_RAW at start, wants CAP_BPF, and
            drops them; one thread, which sees no packet, keeps CAP_NET_ADMIN unless --no-restore is given.
            """#)

    @Argument(help: ArgumentHelp("The TUN interface to make.", valueName: "name"), transform: Parse.interface)
    var name = "tund0"

    @Option(
        help: ArgumentHelp("This host's underlay address, or 'auto'. (default: auto)", valueName: "A"), transform: Parse.local)
    var local = LocalChoice.automatic

    @Option(help: ArgumentHelp("Point to point: the one peer.", valueName: "A"), transform: Parse.ipv4Host)
    var remote: IPv4Address?

    @Option(
        help: ArgumentHelp(
            "What is inside: 'ip6ip' for IPv6, 'ipip' for IPv4, 'any' for both; the last two with --remote. (default: ip6ip)",
            valueName: "ip6ip|ipip|any"),
        transform: Parse.mode)
    var mode = TunnelMode.ip6ip

    @OptionGroup var domainOptions: DomainOptions

    @Option(
        help: ArgumentHelp(
            "A border relay: takes what is outside the domain and may send from there. Repeatable; flows are spread.",
            valueName: "A"),
        transform: Parse.ipv4Host)
    var relay: [IPv4Address] = []

    @Flag(help: "The IPv4 network is one ISATAP link (RFC 5214), in place of a domain.")
    var isatap = false

    @Option(
        help: ArgumentHelp(
            "A potential router of the ISATAP link: takes what is not on it, may send any source. Repeatable.",
            valueName: "A"),
        transform: Parse.ipv4Host)
    var prl: [IPv4Address] = []

    @Option(
        help: ArgumentHelp("A /64 of the ISATAP link; the TUN gets its address in it. Repeatable.", valueName: "P/64"),
        transform: Parse.ipv6Prefix)
    var isatapPrefix: [IPv6Prefix] = []

    @Flag(help: "Route ::/0 into the tunnel (with --relay, --prl or --remote).")
    var defaultRoute = false

    @Flag(help: "This host is a border relay: forward between the domain and what is outside.")
    var borderRelay = false

    @Option(
        help: ArgumentHelp("The host A holds PREFIX. Repeatable; the longest prefix wins.", valueName: "PREFIX=A"),
        transform: Parse.route)
    var route: [StaticRoute] = []

    @Option(
        help: ArgumentHelp("PREFIX, too, lives behind this host. Repeatable.", valueName: "PREFIX"), transform: Parse.ipv6Prefix)
    var localPrefix: [IPv6Prefix] = []

    @Flag(
        help: ArgumentHelp(
            "Send ::a.b.c.d to a.b.c.d (automatic tunneling); the TUN gets ::A/96. --source-check sit and off include it."))
    var v4Compatible = false

    @Option(
        help: ArgumentHelp(
            "Who may use which address: 'strict', 'sit' for what the kernel's sit checks, 'off'. (default: strict)",
            valueName: "LEVEL"),
        transform: Parse.sourceCheck)
    var sourceCheck = SourceCheck.strict

    @Option(
        help: ArgumentHelp("TTL of the outer header: 1 to 255, or 'inherit'. (default: 64)", valueName: "N"), transform: Parse.ttl
    )
    var ttl = OuterField.fixed(64)

    @Option(
        help: ArgumentHelp(
            "TOS byte of the outer header, or 'inherit'; ECN always follows the inner header. (default: inherit)",
            valueName: "N"),
        transform: Parse.tos)
    var tos = OuterField.inherit

    @Option(
        help: ArgumentHelp(
            "The outer ECN bits of CE inside: 'sit' sends ECT(0) as the kernel, 'rfc6040' copies. (default: sit)",
            valueName: "RULE"),
        transform: Parse.ecn)
    var ecn = ECN.Encapsulation.sit

    @Flag(inversion: .prefixedNo, help: "Send with DF set; else let IPv4 fragment.")
    var pmtudisc = true

    @Option(
        help: ArgumentHelp("MTU of the TUN, or 'auto': the underlay's less 20. (default: auto)", valueName: "N"),
        transform: Parse.mtu)
    var mtu = MTUChoice.automatic

    @Option(
        help: ArgumentHelp(
            "Lower the MSS of TCP connections through the tunnel to N; 'auto': to what the MTU leaves. (default: off)",
            valueName: "auto|N|off"),
        transform: Parse.mssClamp)
    var mssClamp = MSSClampChoice.off

    @Option(
        help: ArgumentHelp("The underlay interface or VRF to use, and no other.", valueName: "IFACE"),
        transform: Parse.underlayInterface)
    var dev: String?

    @Option(
        help: ArgumentHelp("Mark of the underlay packets, for routing rules and netfilter. (default: 0)", valueName: "N"),
        transform: Parse.mark)
    var fwmark: UInt32 = 0

    @Option(
        help: ArgumentHelp(
            "The network namespace of the underlay, if not this one: a name, a path, or fd:N. Needs CAP_SYS_ADMIN at start.",
            valueName: "NETNS"),
        transform: Parse.namespace)
    var underlayNetns: NamespaceChoice?

    @Option(
        help: ArgumentHelp(
            "Address of the TUN: V6/len; 'auto' for ::1 of the own prefix with the routes; 'none' to set nothing. (default: auto)",
            valueName: "V6/len"),
        transform: Parse.address)
    var address = AddressChoice.automatic

    @Option(
        help: ArgumentHelp(
            "Become this user, by name or number, once everything is open. Needs CAP_SETUID and CAP_SETGID at start.",
            valueName: "NAME|UID[:GROUP]"),
        transform: Parse.user)
    var user: UserIdentity?

    @Option(
        help: ArgumentHelp("Threads that carry packets, or 'auto': one per CPU, up to 4. (default: auto)", valueName: "N"),
        transform: Parse.workers)
    var workers = WorkerChoice.automatic

    @Flag(help: "Keep each of those threads on a CPU of its own.")
    var pin = false

    @Flag(inversion: .prefixedNo, help: "Wait for a local address that this host does not have yet; else refuse to start.")
    var wait = true

    @Flag(
        inversion: .prefixedNo,
        help: "Put back what others take from the TUN, and follow the host to another address; keeps CAP_NET_ADMIN.")
    var restore = true

    @Flag(inversion: .prefixedNo, help: "Take TCP from the TUN in super-packets and split them here.")
    var tso = true

    @Flag(inversion: .prefixedNo, help: "The same for UDP, where the kernel can (Linux 6.2).")
    var uso = true

    @Flag(inversion: .prefixedNo, help: "Merge received TCP and UDP packets into super-packets for the TUN.")
    var gro = true

    @Option(
        help: ArgumentHelp("Look for packets so long before sleeping: less delay for a busy CPU.", valueName: "USEC"),
        transform: Parse.busyPoll)
    var busyPoll = 0

    @Option(help: ArgumentHelp("debug, info, warning or error.", valueName: "LEVEL"))
    var logLevel = LogLevel.info

    @Flag(help: "Validate, print what would be done, and exit.")
    var check = false

    @Option(help: .hidden, transform: Parse.tunReading)
    var tunReading: TunReading?

    enum LogLevel: String, ExpressibleByArgument, CaseIterable {
        case debug, info, warning, error
    }

    func validate() throws {
        _ = try tunnelConfiguration()
    }

    /// The options as a whole; an error names the options that do not go together.
    func tunnelConfiguration() throws -> TunnelConfiguration {
        let domain: Domain?
        if isatap {
            try checkISATAP()
            domain = nil
        } else if !prl.isEmpty || !isatapPrefix.isEmpty {
            throw ValidationError("\(prl.isEmpty ? "--isatap-prefix" : "--prl") needs --isatap beside it")
        } else if remote != nil {
            let misplaced: [(Bool, String, String)] = [
                (!relay.isEmpty, "--relay", "the remote gets everything"),
                (borderRelay, "--border-relay", "a point-to-point tunnel has no domain to relay for"),
                (!route.isEmpty, "--route", "the remote gets everything"),
                (v4Compatible, "--v4-compatible", "the remote gets everything"),
                (!localPrefix.isEmpty, "--local-prefix", "a point-to-point tunnel takes every inner address"),
                (
                    domainOptions.relayPrefix != nil && domainOptions.prefix == nil, "--6rd-relay-prefix",
                    "it needs --6rd-prefix beside it"
                ),
            ]
            for (isGiven, option, reason) in misplaced where isGiven {
                throw ValidationError("\(option) does not go with --remote: \(reason)")
            }
            if !mode.carriesIPv6 {
                let misplaced: [(Bool, String)] = [
                    (domainOptions.prefix != nil, "--6rd-prefix"), (defaultRoute, "--default-route"),
                    (address != .automatic, "--address"),
                ]
                for (isGiven, option) in misplaced where isGiven {
                    throw ValidationError(
                        "\(option) is about IPv6, which --mode ipip does not carry (ip -4 address and route set up IPv4)")
                }
            }
            domain = domainOptions.prefix == nil ? nil : try domainOptions.domain()
        } else {
            if mode.carriesIPv4 {
                throw ValidationError("--mode \(mode.rawValue) needs --remote: an IPv4 address inside tells no host to send to")
            }
            domain = try domainOptions.domain()
            if defaultRoute && relay.isEmpty {
                throw ValidationError("--default-route needs --relay, --prl or --remote: somebody must take the packets")
            }
        }
        if case .address(let own) = local {
            if let domain, !domain.contains(own) {
                throw ValidationError(
                    "--local \(own) is not in the domain's IPv4 network \(domain.relayPrefix) (--6rd-relay-prefix)")
            }
            if own == remote { throw ValidationError("--remote \(own) is --local itself") }
            if relay.contains(own) { throw ValidationError("--relay \(own) is --local itself") }
            if prl.contains(own) { throw ValidationError("--prl \(own) is --local itself") }
        }
        try checkPlan(of: domain)
        var offloads = Offloads()
        offloads.tcpSegmentation = tso
        offloads.udpSegmentation = uso
        offloads.receiveMerge = gro
        return TunnelConfiguration(
            name: name, local: local, remote: remote, mode: mode, domain: domain,
            isatap: isatap ? ISATAPLink(prefixes: isatapPrefix, routers: unique(prl)) : nil, relays: unique(relay),
            isBorderRelay: borderRelay, routes: route, localPrefixes: localPrefix, sourceCheck: sourceCheck,
            takesCompatible: remote == nil && !isatap && (v4Compatible || sourceCheck != .strict),
            hasDefaultRoute: defaultRoute, ttl: ttl, tos: tos, ecn: ecn,
            discoversPathMTU: pmtudisc, mtu: mtu, mssClamp: mssClamp, device: dev, mark: fwmark,
            underlayNamespace: underlayNetns, address: address, user: user,
            workers: workers.count, pinsWorkers: pin, offloads: offloads,
            busyPoll: busyPoll, waits: wait, restores: restore)
    }

    /// What makes no sense on an ISATAP link.
    private func checkISATAP() throws {
        let misplaced: [(Bool, String, String)] = [
            (remote != nil, "--remote", "the link has many hosts"),
            (domainOptions.prefix != nil, "--6rd-prefix", "the link has prefixes of its own (--isatap-prefix)"),
            (domainOptions.relayPrefix != nil, "--6rd-relay-prefix", "the link has prefixes of its own (--isatap-prefix)"),
            (!relay.isEmpty, "--relay", "the link has routers (--prl)"),
            (mode.carriesIPv4, "--mode \(mode.rawValue)", "an IPv4 address inside tells no host to send to"),
            (v4Compatible, "--v4-compatible", "the link has prefixes of its own (--isatap-prefix)"),
        ]
        for (isGiven, option, reason) in misplaced where isGiven {
            throw ValidationError("\(option) does not go with --isatap: \(reason)")
        }
        for prefix in isatapPrefix {
            if prefix.length != 64 { throw ValidationError("--isatap-prefix \(prefix): ISATAP addresses need a /64") }
            if AddressPlan.isReserved(prefix) {
                throw ValidationError("--isatap-prefix: \(AddressPlanError.reserved(prefix))")
            }
        }
        if defaultRoute && prl.isEmpty {
            throw ValidationError("--default-route needs --prl on an ISATAP link: somebody must take the packets")
        }
    }

    /// Whether the prefixes can stand beside each other. What hangs on an address that is still to be found is seen later.
    private func checkPlan(of domain: Domain?) throws {
        let own: IPv4Address? = if case .address(let address) = local { address } else { nil }
        do {
            _ = try AddressPlan(
                domain: own == nil ? nil : domain, local: own ?? .any, localPrefixes: localPrefix,
                routes: route.map { ($0.prefix, $0.endpoint) })
        } catch {
            throw ValidationError("--route or --local-prefix: \(error)")
        }
        for (index, entry) in route.enumerated() {
            if route[..<index].contains(where: { $0.prefix == entry.prefix }) {
                throw ValidationError("--route \(entry.prefix) is given twice: one host can hold it")
            }
            if defaultRoute && entry.prefix.length == 0 {
                throw ValidationError("--route ::/0 and --default-route both want everything: leave one of them out")
            }
        }
    }

    private func unique(_ addresses: [IPv4Address]) -> [IPv4Address] {
        addresses.enumerated().filter { addresses.firstIndex(of: $0.element) == $0.offset }.map(\.element)
    }

    func run() throws {
        LoggingSystem.bootstrap { StandardErrorLog(label: $0) }
        var log = Logger(label: name)
        log.logLevel = Logger.Level(rawValue: logLevel.rawValue) ?? .info
        let configuration = try tunnelConfiguration()
        if check { return try Check.run(configuration) }
        try Daemon(configuration: configuration, log: log, reading: tunReading).run()
    }
}
