internal import Logging
internal import TunnelCore

extension Follower {
    /// What the configuration asks, of the interfaces as they are now.
    var underlayQuery: UnderlayQuery {
        var query = configuration.underlayQuery
        query.deviceIndex = preparation?.device ?? firstDevice
        if configuration.underlayNamespace == nil { query.tun = tun.link.index }
        return query
    }

    /// Looks whether the host still has the tunnel's local address and the same way out, and goes over to others where that may be; where
    /// the tunnel waits for its address, whether that has come.
    /// - Throws: when the address has come, and somebody else has it already.
    func followUnderlay() throws(Failure) -> Schedule.Outcome {
        let current = preparation.map {
            ResolvedUnderlay.Current(local: $0.local, path: $0.path, isRenumbered: configuration.isRenumbered)
        }
        let found: ResolvedUnderlay
        do throws(ControlError) {
            found = try ResolvedUnderlay.resolve(configuration.local, underlayQuery, after: current, over: underlayNetlink)
        } catch {
            if !error.isTransient {
                underlayNotice.tell("\(error)", to: log)
                return .failed
            }
            wait(error)
            return .done
        }
        guard let preparation else {
            try establish(found)
            return .done
        }
        if found.local == preparation.local && found.path == preparation.path && found.device == preparation.device && !isHalfway
        {
            isBack()
            // A socket that found no route to the remote is connected when there is one.
            if configuration.remote != nil { try? handles.bind(preparation.local, preparation.device) }
            return .done
        }
        do throws(Failure) {
            try goOver(from: preparation, to: found)
            return .done
        } catch {
            underlayNotice.tell("\(error)", to: log)
            return .failed
        }
    }

    private func wait(_ error: ControlError) {
        isWaiting = true
        guard let preparation else { return underlayNotice.tell("\(error): tund waits for it", about: error.reason, to: log) }
        if configuration.isRenumbered {
            return underlayNotice.tell("\(error): nothing passes until there is one", about: error.reason, to: log)
        }
        let local = preparation.local
        let isThere = preparation.device == nil || (try? underlayNetlink.link(index: preparation.device!)) ?? nil != nil
        underlayNotice.tell(
            isThere
                ? "no interface has the local address \(local) any more: nothing passes until it is back"
                : "\(error): nothing passes until it is back", about: error.reason, to: log)
    }

    private func isBack() {
        if isWaiting, let preparation { log.info("the local address \(preparation.local) is back") }
        isWaiting = false
        underlayNotice.close()
    }

    /// The tunnel has its address: from here on it carries.
    func establish(_ found: ResolvedUnderlay) throws(Failure) {
        let next = try Preparation(configuration, found)
        for fact in next.facts { log.info("\(fact)") }
        for warning in next.warnings { log.warning("\(warning)") }
        try Failure.wrap { () throws(ControlError) in
            try coexistence.check(next)
            try claims.lay(next.claims)
            handles.adopt(next.policy)
            try handles.bind(next.local, next.device)
            try coexistence.settle(next, claims, handles.sockets())
            tun.adopt(next.link)
            _ = try tun.reconcile(over: netlink, writes: true)
        }
        preparation = next
        isWaiting = false
        underlayNotice.close()
        tunPlanChanged()
        if !configuration.restores { writes = false }
        try handles.start(claims)
    }

    /// The workers go by the new policy before the sockets and the TUN follow: what is under way with the old prefix is dropped,
    /// and nothing leaves from an address that its prefix does not belong to.
    private func goOver(from old: Preparation, to found: ResolvedUnderlay) throws(Failure) {
        let next = try Preparation(configuration, found)
        // Those of an earlier attempt that failed may be another address's.
        let claimsAnew = next.claims != claims.laid && configuration.underlayNamespace == nil
        isHalfway = true
        try Failure.wrap { () throws(ControlError) in
            guard claimsAnew else { return }
            try coexistence.check(next, own: claims)
            let held = try TunnelClaim.Held(room: next.claims.count)
            try held.lay(next.claims)
            nextHops = findNextHops(next)
            claims = held
        }
        handles.adopt(try next.policy(following: nextHops.routes))
        try Failure.wrap { () throws(ControlError) in
            try handles.bind(next.local, next.device)
            guard claimsAnew else { return }
            do throws(ControlError) {
                try coexistence.settle(next, claims, handles.sockets())
            } catch {
                handles.rest()
                throw error
            }
        }
        if writes {
            tun.adopt(next.link)
            _ = try Failure.wrap { () throws(ControlError) in try tun.reconcile(over: netlink, writes: true) }
        }
        for warning in next.warnings where !old.warnings.contains(warning) { log.warning("\(warning)") }
        if next.local != old.local {
            log.info("renumbered from \(old.identity) to \(next.identity)")
        } else {
            isBack()
            if next.path != old.path { log.info("\(next.facts[0])") }
        }
        preparation = next
        (isHalfway, isWaiting) = (false, false)
        underlayNotice.close()
        tunPlanChanged()
    }
}

extension Preparation {
    /// `10.0.0.1 (fd00:0:a00:1::/64)`
    fileprivate var identity: String { "\(local)" + (delegatedPrefix.map { " (\($0))" } ?? "") }
}
