internal import Glibc
internal import TunnelCore

/// A configuration together with what this host made of it: everything that is decided before anything is changed.
struct Preparation {
    let configuration: TunnelConfiguration
    let local: IPv4Address
    let path: UnderlayPath
    /// The index of the `--dev` interface.
    let device: Int32?
    /// What the workers go by.
    let policy: TunnelPolicy
    /// What the TUN interface is to look like.
    let link: TunLinkPlan
    /// What the operator should know, though nothing is wrong enough to stop.
    let warnings: [String]

    /// The host's own prefix; nil without a domain.
    var delegatedPrefix: IPv6Prefix? { configuration.domain?.delegatedPrefix(of: local) }

    /// What belongs to this host.
    var ownPrefixes: [IPv6Prefix] { (delegatedPrefix.map { [$0] } ?? []) + configuration.localPrefixes }

    /// - Parameter underlay: what the host answered.
    init(_ configuration: TunnelConfiguration, _ underlay: ResolvedUnderlay) throws(Failure) {
        self.configuration = configuration
        (local, path, device) = (underlay.local, underlay.path, underlay.device)
        let mtu =
            switch configuration.mtu {
            case .automatic: path.tunnelMTU
            case .bytes(let bytes): bytes
            }
        warnings =
            underlay.warnings + Self.warnings(configuration, local: local, path: path, mtu: mtu)
        if let broadcast = path.broadcast {
            let endpoints =
                [configuration.remote].compactMap(\.self) + configuration.relays + (configuration.isatap?.routers ?? [])
                + configuration.routes.map(\.endpoint)
            if endpoints.contains(broadcast) {
                throw Failure("\(broadcast) is the broadcast address of \(path.interfaceName), not the address of a single host")
            }
        }
        policy = try Self.policy(configuration, local: local, broadcast: path.broadcast, mtu: mtu)
        link = Self.linkPlan(configuration, local: local, mtu: mtu)
    }

    /// What the tunnel takes, for other tunds to know.
    var claims: [TunnelClaim] { TunnelClaim.claims(of: configuration, local: local, device: device) }

    /// `policy`, with the next hops of kernel routes: against `--route` with the same prefix they win, as in the kernel.
    func policy(following nextHops: [StaticRoute]) throws(Failure) -> TunnelPolicy {
        let replaced = Set(nextHops.map(\.prefix))
        var configuration = configuration
        configuration.routes = configuration.routes.filter { !replaced.contains($0.prefix) } + nextHops
        return try Self.policy(configuration, local: local, broadcast: path.broadcast, mtu: policy.mtu)
    }

    static func policy(
        _ configuration: TunnelConfiguration, local: IPv4Address, broadcast: IPv4Address?, mtu: Int
    ) throws(Failure) -> TunnelPolicy {
        let peers: TunnelPolicy.Peers
        if let remote = configuration.remote {
            peers = .remote(remote)
        } else if let link = configuration.isatap {
            var (prefixes, localPrefixes) = (link.prefixes, configuration.localPrefixes)
            if case .fixed(let address, let length) = configuration.address {
                let prefix = IPv6Prefix(masking: address, length: 64)
                if length == 64 && !prefixes.contains(prefix) { prefixes.append(prefix) }
                localPrefixes.append(IPv6Prefix(masking: address, length: 128))
            }
            peers = .isatap(
                try Failure.wrap { () throws(AddressPlanError) in
                    try ISATAPPeers(
                        local: local, prefixes: prefixes, routers: link.routers, isRouter: configuration.isBorderRelay,
                        localPrefixes: localPrefixes, routes: configuration.routes.map { ($0.prefix, $0.endpoint) })
                })
        } else if let domain = configuration.domain {
            if !domain.contains(local) {
                throw Failure("this host's address \(local) is not in the domain's IPv4 network \(domain.relayPrefix)")
            }
            let routes = configuration.routes.map { (prefix: $0.prefix, endpoint: $0.endpoint) }
            var localPrefixes = configuration.localPrefixes
            if configuration.sourceCheck == .sit, case .fixed(let address, _) = configuration.address, domain.contains(address) {
                // So many bits of an interface's address sit compares (`only_dnatted`).
                localPrefixes.append(IPv6Prefix(masking: address, length: domain.delegatedPrefixLength))
            }
            peers = .domain(
                try Failure.wrap { () throws(AddressPlanError) in
                    try DomainPeers(
                        domain: domain, local: local, relays: configuration.relays, isBorderRelay: configuration.isBorderRelay,
                        localPrefixes: localPrefixes, routes: routes, takesCompatible: configuration.takesCompatible)
                })
        } else {
            throw Failure("neither a domain nor a remote nor an ISATAP link")
        }
        var policy = TunnelPolicy(local: local, peers: peers)
        policy.mode = configuration.mode
        policy.sourceCheck = configuration.sourceCheck
        policy.dontFragment = configuration.discoversPathMTU
        policy.ttl = configuration.ttl
        policy.tos = configuration.tos
        policy.ecn = configuration.ecn
        policy.broadcast = broadcast ?? .any
        policy.mtu = mtu
        policy.mssClamp =
            switch configuration.mssClamp {
            case .off: .off
            case .automatic: MSSClamp(mtu: mtu)
            case .bytes(let size): MSSClamp(size)
            }
        if case .fixed(let address, _) = configuration.address { policy.errorSource = address }
        return policy
    }

    /// What works, but hardly as it was meant.
    static func warnings(_ configuration: TunnelConfiguration, local: IPv4Address, path: UnderlayPath, mtu: Int) -> [String] {
        var warnings: [String] = []
        if configuration.discoversPathMTU && mtu > path.tunnelMTU {
            warnings.append(
                "--mtu \(mtu) is more than the path takes (\(path.tunnelMTU)): sources of longer packets are told so"
            )
        }
        if configuration.remote == nil, configuration.sourceCheck != .strict {
            warnings.append("--source-check \(configuration.sourceCheck.rawValue): anybody can send packets through this host")
        }
        if case .fixed(let address, _) = configuration.address, configuration.domain != nil, configuration.remote == nil,
            !configuration.isBorderRelay,
            configuration.sourceCheck == .strict
        {
            let own = [configuration.domain?.delegatedPrefix(of: local)].compactMap(\.self) + configuration.localPrefixes
            if !own.contains(where: { $0.contains(address) }) {
                warnings.append(
                    "--address \(address) is not in this host's prefixes: nothing sent from it will pass (--local-prefix would change that)"
                )
            }
        }
        return warnings
    }

    /// The interface before the tunnel has an address.
    static func linkPlan(waiting configuration: TunnelConfiguration) -> TunLinkPlan {
        let mtu = if case .bytes(let bytes) = configuration.mtu { bytes } else { IPv6Header.leastMTU }
        return TunLinkPlan(mtu: mtu, transmitQueueLength: nil, isPointToPoint: configuration.remote != nil)
    }

    static func linkPlan(_ configuration: TunnelConfiguration, local: IPv4Address, mtu: Int) -> TunLinkPlan {
        var plan = TunLinkPlan(mtu: mtu, transmitQueueLength: nil, isPointToPoint: configuration.remote != nil)
        if configuration.address == .none { return plan }

        let domain = configuration.domain
        let delegated = domain?.delegatedPrefix(of: local)
        if configuration.remote != nil && configuration.mode.carriesIPv6 {
            plan.addresses.append(.init(address: .linkLocal(embedding: local), prefixLength: 64))
        }
        if configuration.isatap != nil {
            plan.addresses.append(.init(address: .isatap(local, in: .linkLocal), prefixLength: 64))
        }
        var onLink: [IPv6Prefix] = []
        if case .fixed(let address, let length) = configuration.address {
            plan.addresses.append(.init(address: address, prefixLength: length))
            onLink.append(IPv6Prefix(masking: address, length: length))
        } else if let link = configuration.isatap {
            plan.addresses += link.prefixes.map { .init(address: .isatap(local, in: $0), prefixLength: 64) }
        } else if let domain, let delegated {
            // With the domain's length the whole domain is on the link: no route to anybody is needed.
            let address = IPv6Address(high: delegated.address.high, low: 1)
            // A domain of everything is a default route; the kernel takes no address of length 0.
            let length = domain.prefixLength > 0 ? domain.prefixLength : delegated.length
            plan.addresses.append(.init(address: address, prefixLength: length))
            onLink.append(IPv6Prefix(masking: address, length: length))
        }
        if configuration.takesCompatible { plan.addresses.append(.init(address: .compatible(with: local), prefixLength: 96)) }
        if let domain, !onLink.contains(where: { $0.length <= domain.prefixLength && $0.contains(domain.prefix.address) }) {
            plan.routes.append(domain.prefix)
        }
        plan.routes += configuration.routes.map(\.prefix)
        plan.takesNextHops = configuration.remote == nil && configuration.isatap == nil
        if configuration.hasDefaultRoute { plan.routes.append(IPv6Prefix(masking: .unspecified, length: 0)) }
        // The domain may be one of them.
        plan.routes = plan.routes.enumerated().filter { plan.routes.firstIndex(of: $0.element) == $0.offset }.map(\.element)
        plan.unreachable = (delegated.map { [$0] } ?? []) + configuration.localPrefixes
        return plan
    }

    /// For `--check`: facts first, then the changes in the language of ip(8).
    func printPlan(warnings: [String]) {
        for line in facts { print("# \(line)") }
        for warning in warnings + self.warnings { print("# warning: \(warning)") }
        print("ip tuntap add \(configuration.name) mode tun multi_queue vnet_hdr user \(configuration.user?.uid ?? geteuid())")
        for command in link.commands(device: configuration.name) { print(command) }
    }

    /// One line each, for `--check` and the log.
    var facts: [String] {
        var facts = ["local \(local) on \(path.interfaceName), path MTU \(path.mtu)"]
        if let namespace = configuration.underlayNamespace { facts[0] += ", in the network namespace \(namespace)" }
        if let remote = configuration.remote {
            let inner = configuration.mode == .any ? "IPv6 and IPv4" : configuration.mode == .ipip ? "IPv4" : "IPv6"
            facts.append("point to point with \(remote), for \(inner)")
        }
        if let domain = configuration.domain, let delegatedPrefix {
            facts.append("domain \(domain.prefix) of \(domain.relayPrefix), this host owns \(delegatedPrefix)")
        }
        if let link = configuration.isatap {
            facts.append("ISATAP, this host is \(IPv6Address.isatap(local, in: link.prefixes.first ?? .linkLocal))")
            if !link.routers.isEmpty { facts.append("routers \(link.routers.map(\.description).joined(separator: ", "))") }
        }
        if configuration.isBorderRelay { facts.append("border relay") }
        if !configuration.relays.isEmpty {
            facts.append("relays \(configuration.relays.map(\.description).joined(separator: ", "))")
        }
        facts += configuration.routes.map { "\($0.prefix) is behind \($0.endpoint)" }
        facts += configuration.localPrefixes.map { "\($0) is behind this host" }
        if configuration.sourceCheck != .strict { facts.append("source check \(configuration.sourceCheck.rawValue)") }
        if let user = configuration.user { facts.append("user \(user)") }
        facts.append("\(configuration.workers) worker\(configuration.workers == 1 ? "" : "s")")
        return facts
    }
}
