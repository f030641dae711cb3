internal import TunnelCore

/// What the host answers to the command line's questions about the IPv4 side: the tunnel's own address, and the way out.
struct ResolvedUnderlay: Equatable {
    let local: IPv4Address
    let path: UnderlayPath
    /// The index of the `--dev` interface.
    let device: Int32?
    let warnings: [String]

    /// What holds so far, for a tunnel that has its address.
    struct Current {
        let local: IPv4Address
        let path: UnderlayPath
        /// It goes over to another address where the host does.
        let isRenumbered: Bool
    }

    /// Asks the kernel; changes nothing and needs no privilege.
    /// - Throws: transient errors where the address, or the way out, may still come.
    static func resolve(
        _ choice: LocalChoice, _ query: UnderlayQuery, after current: Current? = nil, over netlink: borrowing Netlink
    ) throws(ControlError) -> ResolvedUnderlay {
        var asked: [IPv4Address] = []
        if let current { asked.append(current.local) }
        if case .address(let address) = choice { asked.append(address) }
        var facts = try UnderlayFacts.gather(query, from: nil, asking: asked, over: netlink)
        // Before the choice of an address, which has no way out to look at then.
        try UnderlayPath.checkEndpoints(query, facts)
        let local: IPv4Address
        var warnings: [String] = []
        switch (choice, current) {
        case (.automatic, nil):
            local = try LocalAddress.choose(query, facts)
        case (.automatic, let current?) where current.isRenumbered:
            local = try LocalAddress.follow(current.local, on: current.path.interfaceIndex, query, facts)
        case (.automatic, let current?):
            local = current.local
            _ = try LocalAddress.check(local, query, facts)
        case (.address(let address), _):
            local = address
            warnings = try LocalAddress.check(address, query, facts)
        }
        try facts.look(query, from: local, over: netlink)
        let path: UnderlayPath
        do {
            path = try UnderlayPath.resolve(local: local, query, facts)
        } catch {
            // Routes come and go while the tunnel runs; its way is what it was until there is another.
            guard let current, current.local == local, error.isTransient else { throw error }
            path = current.path
        }
        return ResolvedUnderlay(local: local, path: path, device: facts.device?.index, warnings: warnings)
    }
}
