internal import TunnelCore

/// The tunnel's own IPv4 address: found for `--local auto`, checked for `--local A`.
enum LocalAddress {
    /// `--local auto`.
    /// - Throws: when no address or more than one would do; the error says which.
    static func find(_ query: UnderlayQuery, over netlink: borrowing Netlink) throws(ControlError) -> IPv4Address {
        try choose(query, try UnderlayFacts.gather(query, from: nil, over: netlink))
    }

    /// The rule of `--local auto`: the address that the kernel itself would send from to the remote or a relay, else to the domain's
    /// network or the Internet, on whatever interface that address is. Where no route says so, the only global unicast address
    /// that is not on a loopback interface, on the device (or in the VRF that it is) and in the relay prefix if those are given; in a
    /// relay prefix also one on a loopback interface, if there is no other.
    static func choose(_ query: UnderlayQuery, _ facts: UnderlayFacts) throws(ControlError) -> IPv4Address {
        let attempt = "tell which IPv4 address is the tunnel's own"
        let device = try device(query, facts)
        if let source = sources(query, facts, device).first { return source }
        let usable = facts.addresses.filter { entry in
            guard entry.isGlobalScope, entry.address.isUnicastHost, entry.interfaceIndex != query.tun else { return false }
            guard let link = facts.link(entry.interfaceIndex) else { return false }
            let vrf = facts.vrf(of: link)
            return device.map { link == $0 || vrf == $0 } ?? (vrf == nil)
                && query.confiningPrefix?.contains(entry.address) ?? true
        }
        var candidates = usable.filter { !(facts.link($0.interfaceIndex)?.isLoopback ?? true) }
        if candidates.isEmpty && query.confiningPrefix != nil { candidates = usable }
        guard let first = candidates.first else {
            var place = query.device.map { "\($0) has" } ?? "no interface has"
            place += query.device == nil ? " a" : " no"
            let within = query.confiningPrefix.map { " in the relay prefix \($0)" } ?? ""
            let others = facts.addresses.filter { $0.address.isUnicastHost }
            throw ControlError(
                attempt, reason: "\(place) global IPv4 address\(within)",
                remedy: others.isEmpty
                    ? nil
                    : "this host has \(facts.list(others))" + (query.confiningPrefix == nil ? "; pass --local A to use one" : ""),
                isTransient: true)
        }
        // The same address may be on several interfaces.
        if candidates.allSatisfy({ $0.address == first.address }) { return first.address }
        throw ControlError(
            attempt, reason: "there are \(candidates.count): \(facts.list(candidates))", remedy: "pass --local A")
    }

    /// What the kernel would send from, by the routes in the order of their weight: the remote's or the relays', then all others'.
    private static func sources(_ query: UnderlayQuery, _ facts: UnderlayFacts, _ device: LinkInfo?) -> [IPv4Address] {
        (facts.routes + [facts.outward]).compactMap { route in
            // A route to an address of our own says nothing about the way out.
            guard let route, route.type != .local, let source = route.source, source.isUnicastHost else { return nil }
            if let device, !device.isVRF, route.interfaceIndex != device.index { return nil }
            // An interface without address lends itself one of another (`inet_select_addr`), which the operator did not mean. But an address
            // announced by a routing protocol may be on none that leads out.
            let isLent = { (entry: InterfaceAddress) in
                guard let device, !device.isVRF, let owner = facts.link(entry.interfaceIndex) else { return false }
                return owner != device && !owner.isLoopback && owner.kind != "dummy"
            }
            if let network = query.confiningPrefix, !network.contains(source) { return nil }
            let owners = facts.addresses.filter { $0.address == source }
            return owners.allSatisfy { $0.isGlobalScope && $0.interfaceIndex != query.tun && !isLent($0) } ? source : nil
        }
    }

    /// The rule of `--local auto` for a tunnel that runs: it keeps its address while it can, since another one is another prefix.
    /// It can while the kernel takes packets for the address, and has not come to send through another interface.
    ///
    /// A new address is one that `choose` would choose and that something speaks for: a route, the old address's interface, or the
    /// command line. Not just any that is left: while an interface is down for a moment that may be a container bridge's.
    /// - Parameters:
    ///   - interface: that had the old address.
    ///   - facts: with `current` among what was asked.
    /// - Throws: when no address would do.
    static func follow(
        _ current: IPv4Address, on interface: Int32, _ query: UnderlayQuery, _ facts: UnderlayFacts
    ) throws(ControlError) -> IPv4Address {
        var facts = facts
        let isListed = facts.addresses.contains { $0.address == current }
        facts.addresses = facts.addresses.filter { facts.link($0.interfaceIndex)?.isUp ?? false }
        // The kernel takes packets also for the addresses of an interface that is down, but none comes.
        let stays = facts.ours.contains(current) && (!isListed || facts.addresses.contains { $0.address == current })
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
        let isChosenByOperator = query.device != nil || query.confiningPrefix != nil
        let isRouted = sources(query, facts, try device(query, facts)).contains(choice)
        if isRouted || isOn(choice, interface) || isChosenByOperator { return choice }
        if stays { return current }
        throw ControlError(
            "tell which IPv4 address is the tunnel's own", reason: "\(current) is gone, and no route leads out from \(choice)",
            isTransient: true)
    }

    /// The rule of `--local A`: the kernel takes packets for A, on whatever interface.
    /// - Parameter facts: with A among what was asked.
    /// - Returns: warnings.
    static func check(
        _ address: IPv4Address, _ query: UnderlayQuery, _ facts: UnderlayFacts
    ) throws(ControlError) -> [String] {
        let attempt = "use \(address) as the tunnel's own address"
        guard address.isUnicastHost else { throw ControlError(attempt, reason: "not the address of one host") }
        let device = try device(query, facts)
        let owners = facts.addresses.filter { $0.address == address }
        let links = owners.compactMap { facts.link($0.interfaceIndex) }
        let vrf = device.flatMap(facts.vrf)
        // The kernel's rule for table local comes before that for VRFs, so that its answer says nothing here.
        if !links.isEmpty, !links.contains(where: { facts.vrf(of: $0) == vrf }) {
            throw ControlError(
                attempt, reason: "it is not in \(vrf.map { "the VRF \($0.name)" } ?? "the main routing table")",
                remedy: "--dev names a VRF or an interface in it; this host has \(facts.list(owners))")
        }
        if !facts.ours.contains(address) {
            let others = facts.addresses.filter { $0.address.isUnicastHost }
            throw ControlError(
                attempt, reason: owners.isEmpty ? "no interface has \(address)" : "\(facts.list(owners)) is down",
                remedy: others.isEmpty ? nil : "this host has \(facts.list(others))", isTransient: true)
        }
        if let device, !device.isVRF, !links.isEmpty, !links.contains(device) {
            return ["\(address) is an address of this host, but not of \(device.name)"]
        }
        return []
    }

    /// `--dev`, which has to exist.
    static func device(_ query: UnderlayQuery, _ facts: UnderlayFacts) throws(ControlError) -> LinkInfo? {
        guard let name = query.device else { return nil }
        if let device = facts.device { return device }
        throw ControlError(
            "use --dev \(name)", reason: "there is no such interface",
            remedy: "this host has \(facts.links.map(\.name).joined(separator: ", "))", isTransient: query.deviceIndex != nil)
    }
}
