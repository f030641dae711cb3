internal import RingIO
internal import TunnelCore

/// `--check`: says what would be done, and does nothing.
enum Check {
    static func run(_ configuration: TunnelConfiguration) throws(Failure) {
        let underlay = try Failure.wrap { () throws(ControlError) in try UnderlayNamespace(configuration.underlayNamespace) }
        let name = configuration.name
        let taken = try Failure.wrap { () throws(ControlError) in try Netlink().link(named: name) != nil }
        if taken { throw Failure("an interface \(name) exists already (choose another name, or remove it)") }
        let warnings = HostWarnings.all(configuration)
        let found: ResolvedUnderlay
        do throws(ControlError) {
            found = try underlay.inside { () throws(ControlError) in
                try ResolvedUnderlay.resolve(configuration.local, configuration.underlayQuery, over: Netlink())
            }
        } catch {
            guard error.isTransient && configuration.waits else { throw Failure("\(error)") }
            print("# would wait: \(error)")
            for warning in warnings { print("# warning: \(warning)") }
            return
        }
        let preparation = try Preparation(configuration, found)
        try Failure.wrap { () throws(ControlError) in
            try underlay.inside { () throws(ControlError) in try Coexistence() }.check(preparation)
        }
        preparation.printPlan(warnings: warnings)
    }
}
