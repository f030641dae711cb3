internal import TunnelCore

/// The tunnel's own IPv4 address: found for `--local auto`, checked for `--local A`.
enum LocalAddress {
    /// `--local auto`.
    /// - Throws: when no address or more than one would do; the error says which.
    static func find(_ query: UnderlayQuery, over netlink: borrowing Netlink) throws(ControlError) -> IPv4Address {
        try choose(query, try UnderlayFacts.gather(query, over: netlink))
    }

    /// `--local A`: A has to be an address of this host, on whatever interface.
    /// - Returns: warnings.
    static func check(
        _ address: IPv4Address, _ query: UnderlayQuery, over netlink: borrowing Netlink
    ) throws(ControlError) -> [String] {
        try check(address, query, try UnderlayFacts.gather(query, over: netlink))
    }

    /// The rule of `--local auto`. Candidates are the global unicast addresses that are not on a loopback interface, on the
    /// device (or in the VRF that it is) and in the relay prefix if those are given. Of several, the one that the kernel itself would send from to the
    /// remote or a relay, else to the Internet, wins.
    static func choose(_ query: UnderlayQuery, _ facts: UnderlayFacts) throws(ControlError) -> IPv4Address {
        let attempt = "tell which IPv4 address is the tunnel's own"
        let device = try device(query, facts)
        let candidates = facts.addresses.filter { entry in
            guard entry.isGlobalScope, entry.address.isUnicastHost else { return false }
            guard let link = facts.link(entry.interfaceIndex), !link.isLoopback else { return false }
            let vrf = facts.vrf(of: link)
            return device.map { link == $0 || vrf == $0 } ?? (vrf == nil)
                && query.confiningPrefix?.contains(entry.address) ?? true
        }
        guard let first = candidates.first else {
            var place = query.device.map { "\($0) has" } ?? "no interface has"
            place += query.device == nil ? " a" : " no"
            let within = query.confiningPrefix.map { " in the relay prefix \($0)" } ?? ""
            let others = facts.addresses.filter { $0.address.isUnicastHost }
            throw ControlError(
                attempt, reason: "\(place) global IPv4 address\(within)",
                remedy: others.isEmpty
                    ? nil
                    : "this host has \(facts.list(others))" + (query.confiningPrefix == nil ? "; pass --local A to use one" : ""))
        }
        // A route to an address of our own says nothing about the way out.
        let sources = (facts.routes + [nil]).compactMap { $0?.type == .local ? nil : $0?.source }
        if let source = sources.first(where: { source in candidates.contains { $0.address == source } }) { return source }
        // The same address may be on several interfaces.
        if candidates.allSatisfy({ $0.address == first.address }) { return first.address }
        if let source = facts.outward?.source, candidates.contains(where: { $0.address == source }) { return source }
        throw ControlError(
            attempt, reason: "there are \(candidates.count): \(facts.list(candidates))", remedy: "pass --local A")
    }

    /// The rule of `--local auto` for a tunnel that runs: it keeps its address while it can, since another one is another prefix.
    /// It can while an interface that is up has the address, and the kernel has not come to send through another interface.
    ///
    /// A new address is one that `choose` would choose and that something speaks for: a route, the old address's interface, or the
    /// command line. Not just any that is left: while an interface is down for a moment that may be a container bridge's.
    /// - Parameter interface: that had the old address.
    /// - Throws: when no address would do.
    static func follow(
        _ current: IPv4Address, on interface: Int32, _ query: UnderlayQuery, _ facts: UnderlayFacts
    ) throws(ControlError) -> IPv4Address {
        var facts = facts
        facts.addresses = facts.addresses.filter { facts.link($0.interfaceIndex)?.isUp ?? false }
        let stays = facts.addresses.contains { $0.address == current }
        let choice: IPv4Address
        do {
            choice = try choose(query, facts)
        } catch {
            if stays { return current }
            var nearby = facts
            nearby.addresses.removeAll { $0.interfaceIndex != interface }
            if let successor = try? choose(query, nearby) { return successor }
            throw error
        }
        func isOn(_ address: IPv4Address, _ index: Int32) -> Bool {
            facts.addresses.contains { $0.address == address && $0.interfaceIndex == index }
        }
        if choice == current || stays && facts.links.contains(where: { isOn(current, $0.index) && isOn(choice, $0.index) }) {
            return current
        }
        let sources = (facts.routes + [facts.outward]).compactMap { $0?.type == .local ? nil : $0?.source }
        let isChosenByOperator = query.device != nil || query.confiningPrefix != nil
        if sources.contains(choice) || isOn(choice, interface) || isChosenByOperator { return choice }
        if stays { return current }
        throw ControlError(
            "tell which IPv4 address is the tunnel's own", reason: "\(current) is gone, and no route leads out from \(choice)")
    }

    /// The rule of `--local A`.
    static func check(
        _ address: IPv4Address, _ query: UnderlayQuery, _ facts: UnderlayFacts
    ) throws(ControlError) -> [String] {
        let attempt = "use \(address) as the tunnel's own address"
        guard address.isUnicastHost else { throw ControlError(attempt, reason: "not the address of one host") }
        let device = try device(query, facts)
        let owners = facts.addresses.filter { $0.address == address }
        if owners.isEmpty {
            let others = facts.addresses.filter { $0.address.isUnicastHost }
            throw ControlError(
                attempt, reason: "no interface has \(address)",
                remedy: others.isEmpty ? nil : "this host has \(facts.list(others))")
        }
        let links = owners.compactMap { facts.link($0.interfaceIndex) }
        let vrf = device.flatMap(facts.vrf)
        if !links.contains(where: { facts.vrf(of: $0) == vrf }) {
            throw ControlError(
                attempt, reason: "it is not in \(vrf.map { "the VRF \($0.name)" } ?? "the main routing table")",
                remedy: "--dev names a VRF or an interface in it; this host has \(facts.list(owners))")
        }
        if let device, !device.isVRF, !links.contains(device) {
            return ["\(address) is an address of this host, but not of \(device.name)"]
        }
        return []
    }

    /// `--dev`, which has to exist.
    static func device(_ query: UnderlayQuery, _ facts: UnderlayFacts) throws(ControlError) -> LinkInfo? {
        guard let name = query.device else { return nil }
        guard let link = facts.link(named: name) else {
            throw ControlError(
                "use --dev \(name)", reason: "there is no such interface",
                remedy: "this host has \(facts.links.map(\.name).joined(separator: ", "))")
        }
        return link
    }
}
