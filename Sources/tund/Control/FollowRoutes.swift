internal import Logging
internal import TunnelCore

extension Follower {
    /// Makes routes of the plan of the kernel's routes over the TUN.
    /// - Returns: false: try again later.
    func followRoutes() -> Bool {
        do {
            let found = try findNextHops(preparation)
            if found == nextHops { return true }
            warn(of: found)
            if found.routes != nextHops.routes {
                handles.adopt(try preparation.policy(following: found.routes))
                log.debug("following \(found.routes.count) routes with an IPv4 next hop")
            }
            nextHops = found
            return true
        } catch {
            log.warning("\(error)")
            return false
        }
    }

    /// The next hops that count for a tunnel as prepared. Point to point there are none.
    func findNextHops(_ preparation: Preparation) throws -> NextHops {
        guard let domain = preparation.configuration.domain, preparation.configuration.remote == nil else { return NextHops() }
        return NextHops(
            of: try netlink.ipv6Routes(over: tun.link.index), local: preparation.local, broadcast: preparation.path.broadcast,
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
