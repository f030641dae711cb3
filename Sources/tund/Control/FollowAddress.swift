internal import Logging
internal import TunnelCore

extension Follower {
    /// Looks whether the host still has the tunnel's local address, and goes over to another one where that may be.
    /// - Returns: false: try again later.
    func followAddress() -> Bool {
        let (configuration, local) = (preparation.configuration, preparation.local)
        do {
            let facts = try UnderlayFacts.gather(configuration.underlayQuery, over: underlayNetlink)
            if configuration.isRenumbered { return try follow(facts) }
            if facts.addresses.contains(where: { $0.address == local }) {
                isBack()
            } else {
                wait("no interface has the local address \(local) any more: nothing passes until it is back")
            }
            return true
        } catch {
            log.warning("\(error)")
            return false
        }
    }

    private func follow(_ facts: UnderlayFacts) throws -> Bool {
        let next: IPv4Address
        do throws(ControlError) {
            let (query, interface) = (preparation.configuration.underlayQuery, preparation.path.interfaceIndex)
            next = try LocalAddress.follow(preparation.local, on: interface, query, facts)
        } catch {
            wait("\(error): nothing passes until there is one")
            return true
        }
        if next == preparation.local && !isHalfway {
            isBack()
        } else {
            isHalfway = true
            try renumber(to: next)
            (isHalfway, isWaiting) = (false, false)
        }
        return true
    }

    private func wait(_ reason: String) {
        if !isWaiting { log.warning("\(reason)") }
        isWaiting = true
    }

    private func isBack() {
        if isWaiting { log.info("the local address \(preparation.local) is back") }
        isWaiting = false
    }

    /// The workers go by the new policy before the sockets and the TUN follow: what is under way with the old prefix is dropped,
    /// and nothing leaves from an address that its prefix does not belong to.
    private func renumber(to local: IPv4Address) throws {
        let next = try Preparation(preparation.configuration, preparation.underlay, local: local)
        try next.checkCoexistence(own: claims)
        let held = try TunnelClaim.Held(next.claims)
        let hops = try findNextHops(next)
        handles.adopt(try next.policy(following: hops.routes))
        try handles.rebind(local)
        try TunLink.renumber(&tun, from: preparation.link, to: next.link, over: netlink)
        for warning in next.warnings where !preparation.warnings.contains(warning) { log.warning("\(warning)") }
        log.info("renumbered from \(preparation.identity) to \(next.identity)")
        (preparation, claims, nextHops) = (next, held, hops)
    }
}

extension Preparation {
    /// `10.0.0.1 (fd00:0:a00:1::/64)`
    fileprivate var identity: String { "\(local)" + (delegatedPrefix.map { " (\($0))" } ?? "") }
}
