internal import Logging
internal import TunnelCore

extension Follower {
    /// Looks at the TUN: puts back what others took from it, and makes routes of the plan of the kernel's routes over it.
    /// - Throws: when the TUN is gone and no worker would notice.
    func followTun() throws(Failure) -> Schedule.Outcome {
        do throws(ControlError) {
            let was = tunOutcome
            tunOutcome = try tun.reconcile(over: netlink, writes: writes)
            if was == .hasLeft && tunOutcome != .hasLeft { tunWasFound() }
        } catch {
            tunNotice.tell("\(error)", to: log)
            followRoutes()
            return .failed
        }
        let name = tun.link.name
        switch tunOutcome {
        case .settled:
            tunNotice.close()
        case .changed(let changes):
            // Renumbering is told in other words.
            if changes.contains(where: \.isAddition) {
                log.info("\(name) lacked \(list(changes)): put its addresses and routes back")
            }
            tunNotice.close()
            tunWasRestored()
        case .lacks(let changes):
            tunNotice.tell(
                "\(name) has lost \(list(changes)): restart tund (without --no-restore it would put its addresses and routes back)",
                to: log)
        case .isDown:
            tunNotice.tell("\(name) is down: nothing passes until it is up", to: log)
        case .isTooSmall(let mtu):
            tunNotice.tell(
                "\(name) has no IPv6 with an MTU of \(mtu): ip link set \(name) mtu \(tun.plan.mtu)", to: log)
        case .hasLeft:
            tunNotice.tell(
                "\(name) is in another network namespace now: nothing is configured there; its addresses and routes are yours to set",
                to: log)
            return .done
        case .isGone:
            if preparation == nil { throw Failure("\(name) was deleted: nothing is left to read from") }
            return .done
        }
        followRoutes()
        return tun.routes.isInterrupted ? .incomplete : .done
    }

    private func list(_ changes: [TunChange]) -> String {
        let names = changes.compactMap { change -> String? in
            switch change {
            case .addAddress(let address): "\(address)"
            case .addRoute(let prefix, _): "a route to \(prefix)"
            case .addUnreachable(let prefix): "the unreachable route \(prefix)"
            default: nil
            }
        }
        return names.prefix(4).joined(separator: ", ") + (names.count > 4 ? " and \(names.count - 4) more" : "")
    }

    /// Makes routes of the plan of the kernel's routes over the TUN, as they were found last.
    private func followRoutes() {
        guard let preparation else { return }
        let found = findNextHops(preparation)
        if found == nextHops { return }
        warn(of: found)
        do throws(Failure) {
            if found.routes != nextHops.routes {
                handles.adopt(try preparation.policy(following: found.routes))
                log.debug("following \(found.routes.count) routes with an IPv4 next hop")
            }
            nextHops = found
        } catch {
            log.warning("\(error)")
        }
    }

    /// The next hops that count for a tunnel as prepared. Point to point there are none.
    func findNextHops(_ preparation: Preparation) -> NextHops {
        guard let domain = preparation.configuration.domain, preparation.configuration.remote == nil else { return NextHops() }
        // A route that an interrupted dump did not show may be there all the same.
        if tun.routes.isInterrupted {
            let found = Set(tun.routes.routes.map(\.identity))
            kernelRoutes = tun.routes.routes + kernelRoutes.filter { !found.contains($0.identity) }
        } else {
            kernelRoutes = tun.routes.routes
        }
        return NextHops(
            of: kernelRoutes, mainTable: tun.table, local: preparation.local, broadcast: preparation.path.broadcast,
            domain: domain, own: preparation.ownPrefixes)
    }

    /// Of each route once; of many, some.
    private func warn(of found: NextHops) {
        let known = Set(nextHops.warnings)
        let news = found.warnings.filter { !known.contains($0) }
        for warning in news.prefix(5) { log.warning("\(warning)") }
        if news.count > 5 { log.warning("and \(news.count - 5) routes more") }
    }
}

extension TunChange {
    fileprivate var isAddition: Bool {
        switch self {
        case .addAddress, .addRoute, .addUnreachable: true
        default: false
        }
    }
}
