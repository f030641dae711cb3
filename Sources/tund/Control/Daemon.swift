internal import ArgumentParser
internal import CLinux
internal import Glibc
internal import Logging
internal import RingIO
internal import TunnelCore

/// A tunnel from start to stop: opens everything, drops the privileges, starts the workers, and then only listens: to signals,
/// to the error queues, to workers that end.
struct Daemon {
    typealias Engine = UringEngine<RawUnderlay>

    let configuration: TunnelConfiguration
    let log: Logger
    /// nil: the best one the kernel has.
    let reading: TunReading?

    func run() throws(Failure) {
        let needed = Privileges.needed(by: configuration)
        try Failure.wrap { () throws(ControlError) in
            try Privileges.require(needed)
            ProcessSetup.raiseLimits()
        }
        let rings = try reserveRings()
        let notes = takeNotes()
        let underlay = try Failure.wrap { () throws(ControlError) in
            try Privileges.reduce(to: needed + Privileges.wishes(of: configuration))
            return try UnderlayNamespace(configuration.underlayNamespace)
        }
        let start = try resolve(underlay)
        for warning in HostWarnings.all(configuration) { log.warning("\(warning)") }
        if notes == nil {
            for warning in underlay.inside({ DeviceFeatures.warnings() }) { log.warning("\(warning)") }
        }
        // Blocked before any thread starts, so that only the descriptor hears them.
        let signals = try Failure.wrap { () throws(SystemError) in try SignalDescriptor([SIGINT, SIGTERM, SIGHUP, SIGUSR1]) }
        if let found = start.found {
            let preparation = try Preparation(configuration, found)
            try Failure.wrap { () throws(ControlError) in
                try underlay.inside { () throws(ControlError) in try Coexistence() }.check(preparation)
            }
        }
        let opened = try open(underlay, rings, notes, start.device)
        let follower = try Failure.wrap { () throws(ControlError) in
            try Follower(
                configuration, underlay, device: start.device?.index, log: log, handles(of: opened),
                tun: { netlink throws(ControlError) in
                    try TunReconciler(
                        opened.tun.take()!, named: opened.name, Preparation.linkPlan(waiting: configuration), over: netlink)
                })
        }
        if let found = start.found {
            try follower.establish(found)
        } else {
            try stepDown(opened, follower.claims, keeping: [CAP_NET_ADMIN])
        }
        let outcome = listen(opened, signals, follower)
        for thread in opened.threads { thread.stop() }
        for thread in opened.threads { _ = thread.join() }
        printCounters(opened)
        if let outcome { throw Failure(outcome) }
        log.info("stopped")
    }

    /// Asks for the address and the way out.
    /// - Returns: nothing found where the tunnel is to wait for it; and the `--dev` interface, which has to exist.
    private func resolve(_ underlay: UnderlayNamespace) throws(Failure) -> (found: ResolvedUnderlay?, device: Device?) {
        try underlay.inside { () throws(Failure) in
            let netlink = try Failure.wrap { () throws(ControlError) in try Netlink() }
            do throws(ControlError) {
                let device = try configuration.device.flatMap { name throws(ControlError) in
                    try Device(named: name, over: netlink)
                }
                do throws(ControlError) {
                    return (try .resolve(configuration.local, configuration.underlayQuery, over: netlink), device)
                } catch {
                    if error.isTransient && configuration.waits { return (nil, device) }
                    throw error
                }
            } catch {
                throw Failure("\(error)")
            }
        }
    }

    /// `--dev`
    private struct Device {
        let index: Int32
        let isInVRF: Bool

        init?(named name: String, over netlink: borrowing Netlink) throws(ControlError) {
            guard let link = try netlink.link(named: name) else { return nil }
            index = link.index
            let master = try netlink.link(index: link.master)
            isInVRF = link.isVRF || master?.isVRF ?? false
        }
    }

    private func handles(of opened: Opened) -> Follower.Handles {
        Follower.Handles(
            adopt: { [unowned opened] policy in
                for thread in opened.threads { thread.adopt(policy) }
                for thread in opened.threads { thread.waitUntilAdopted() }
                opened.icmp.policy = policy
            },
            bind: { [unowned opened] local, device throws(ControlError) in
                if let interface = opened.interface, let device, device != interface.index {
                    guard interface.isFollowed else {
                        throw ControlError(
                            "go over to the interface that \(configuration.device ?? "") is now", reason: "it is in a VRF",
                            remedy: "restart tund")
                    }
                    interface.become(device)
                }
                do throws(SystemError) {
                    try opened.bind(to: local)
                } catch {
                    throw ControlError("use \(local) as the tunnel's own address", reason: "\(error)", code: error.code)
                }
            },
            rest: { [unowned opened] in opened.rest() },
            sockets: { [unowned opened] in opened.rawDescriptors },
            start: { [unowned opened] claims throws(Failure) in
                try stepDown(opened, claims, keeping: configuration.restores ? [CAP_NET_ADMIN] : [])
                try startWorkers(opened)
                log.info("\(opened.name) is ready")
            })
    }

    /// Becomes the user that it is to be, and gives up capabilities: once what is open needs no more of them.
    private func stepDown(
        _ opened: Opened, _ claims: TunnelClaim.Held, keeping kept: [cap_value_t]
    ) throws(Failure) {
        try Failure.wrap { () throws(ControlError) in
            if let user = configuration.user {
                // Others know the tunnel by raw sockets and claims of one user.
                try Privileges.become(user, takingAlong: opened.rawDescriptors + claims.rawDescriptors)
            }
            try Privileges.dropAll(but: kept)
        }
    }

    /// From a thread without capabilities, for them to inherit none.
    private func startWorkers(_ opened: Opened) throws(Failure) {
        var failure: String?
        do throws(SystemError) {
            let starter = try Thread.start {
                do {
                    try Privileges.dropAll(but: [])
                    for thread in opened.threads { try thread.start() }
                } catch let error as SystemError {
                    failure = explain(error)
                } catch {
                    failure = "\(error)"
                }
            }
            pthread_join(starter, nil)
        } catch {
            failure = explain(error)
        }
        if let failure { throw Failure(failure) }
        try Failure.wrap { () throws(ControlError) in try Privileges.confirm(mayFirstThread: configuration.restores) }
    }

    /// Everything that is open while the tunnel runs.
    private final class Opened {
        let name: String
        let threads: [WorkerThread<Engine>]
        var icmp: ICMPListener
        /// All workers'.
        let sockets: [RawSockets]
        let guardians: [RawListener]
        /// Only point to point.
        let silence: Silence?
        /// `--dev`
        let interface: UnderlayInterface?
        let finished: WakeUp
        /// For who configures the TUN.
        var tun: TunObserver?

        init(
            name: String, threads: [WorkerThread<Engine>], tun: consuming TunObserver?, icmp: consuming ICMPListener,
            sockets: [RawSockets], guardians: [RawListener], silence: Silence?, interface: UnderlayInterface?,
            finished: WakeUp
        ) {
            self.name = name
            self.threads = threads
            self.tun = consume tun
            self.icmp = icmp
            self.sockets = sockets
            self.guardians = guardians
            self.silence = silence
            self.interface = interface
            self.finished = finished
        }

        var rawDescriptors: [Int32] {
            sockets.flatMap(\.rawDescriptors) + guardians.flatMap(\.rawDescriptors) + (silence?.rawDescriptors ?? [])
        }

        /// Receivers and guardians of all workers take nothing.
        func rest() {
            for socket in sockets { try? socket.rest() }
            for guardian in guardians { try? guardian.rest() }
        }

        /// Gives all sockets a local address.
        func bind(to local: IPv4Address) throws(SystemError) {
            for guardian in guardians { try guardian.bind(to: local.rawValue) }
            for socket in sockets { try socket.bind(to: local.rawValue) }
            try silence?.bind(to: local)
        }

        var report: CounterReport {
            CounterReport(
                threads.map { $0.page.read() } + [icmp.counters], threads.map(\.errors),
                overflows: sockets.reduce(0) { $0 + $1.overflows }, icmp: icmp.heard)
        }
    }

    /// One per worker, while root's CAP_IPC_LOCK is still there.
    private func reserveRings() throws(Failure) -> [ReservedRing] {
        do throws(SystemError) {
            var rings: [ReservedRing] = []
            for _ in 0..<configuration.workers { rings.append(try ReservedRing()) }
            return rings
        } catch {
            throw Failure(explain(error))
        }
    }

    /// One per worker, while CAP_BPF is still there; nil where it never was.
    private func takeNotes() -> (ofWorkers: [MergeNotes], gate: InterfaceGate?)? {
        do throws(SystemError) {
            let gate = configuration.device == nil ? nil : try InterfaceGate()
            var notes: [MergeNotes] = []
            for index in 0..<configuration.workers {
                notes.append(
                    try MergeNotes(
                        of: index, among: configuration.workers, carrying: configuration.mode.innerProtocols, gate: gate))
            }
            return (notes, gate)
        } catch {
            let remedy = error.code == EPERM ? " (\(Privileges.reasonForRefusedBPF))" : ""
            log.warning(
                "packets that the kernel merges on arrival (GRO) will not be told from others: \(error)\(remedy)")
            return nil
        }
    }

    /// Opens all that needs privileges; nothing has an address yet.
    private func open(
        _ underlay: UnderlayNamespace, _ rings: [ReservedRing], _ notes: (ofWorkers: [MergeNotes], gate: InterfaceGate?)?,
        _ device: Device?
    ) throws(Failure) -> Opened {
        let policy = TunnelPolicy.waiting
        let remote = configuration.remote?.rawValue
        let interface = device.map { UnderlayInterface(index: $0.index, isInVRF: $0.isInVRF, gate: notes?.gate) }
        // IPv4 inside may have DF of its own.
        let scope = UnderlayScope(
            remote: remote, interface: interface, mark: configuration.mark,
            learnsPathMTU: configuration.discoversPathMTU || configuration.mode.carriesIPv4)
        let isRenumbered = configuration.isRenumbered
        // What most packets carry is the sockets' own; a message that differs says so.
        let ttl: UInt8 = if case .fixed(let value) = configuration.ttl { value } else { 64 }
        let tos: UInt8 = if case .fixed(let value) = configuration.tos { value & ~3 } else { 0 }
        do throws(SystemError) {
            let reading = self.reading ?? rings[0].bestReading
            if reading == .multishot && rings[0].bestReading != .multishot {
                throw SystemError("multishot read of the TUN (Linux 6.7)", code: EOPNOTSUPP)
            }
            log.debug("reading the TUN by \(reading.rawValue)")
            let carried = configuration.mode.innerProtocols
            let softErrors = configuration.remote == nil ? nil : SoftErrors()
            let finished = try WakeUp()
            let name = configuration.name
            var threads: [WorkerThread<Engine>] = []
            var tunWriter: TunWriter?
            var tunObserver: TunObserver?
            var cutsUDP = true
            var sockets: [RawSockets] = []
            for index in 0..<configuration.workers {
                let queue = try TunDevice.open(
                    name, isFirst: index == 0, owner: configuration.user?.uid ?? geteuid(), nonBlocking: reading == .burst)
                if index == 0 {
                    cutsUDP = try negotiate(queue)
                    tunWriter = try queue.writer()
                    tunObserver = try queue.observer()
                }
                let own = try underlay.inside { () throws(SystemError) in
                    try carried.map { inner throws(SystemError) in
                        try RawSockets(
                            inner, scope, isRenumbered: isRenumbered, worker: index, of: configuration.workers,
                            notes: notes?.ofWorkers[index], ttl: ttl, tos: tos)
                    }
                }
                sockets += own
                let wakeUp = try WakeUp()
                let errors = ErrorTable()
                let engine = try Engine(
                    rings[index], tun: queue, underlay: RawUnderlay(own, ttl: ttl, tos: tos), wakeUp: wakeUp, errors: errors,
                    reading: reading,
                    busyPoll: configuration.busyPoll)
                let processors = Processors.allowed
                threads.append(
                    WorkerThread(
                        index: index, of: configuration.workers, engine: engine, policy: policy,
                        merges: configuration.offloads.receiveMerge, errors: errors, softErrors: softErrors,
                        witness: notes.map { Witness($0.ofWorkers[index]) }, cutsUDP: cutsUDP, wakeUp: wakeUp, finished: finished,
                        processor: configuration.pinsWorkers ? processors[index % processors.count] : nil))
            }
            let guardians = try underlay.inside { () throws(SystemError) in
                try carried.map { inner throws(SystemError) in
                    try RawListener.guardian(inner, scope, isRenumbered: isRenumbered)
                }
            }
            for shortage in Set(sockets.flatMap(\.shortages)) { log.warning("\(Self.explain(shortage))") }
            let icmp = try ICMPListener(guardians, tun: tunWriter.take()!, policy: policy, softErrors: softErrors)
            let silence =
                remote == nil ? nil : try underlay.inside { () throws(SystemError) in try Silence(carried, scope) }
            return Opened(
                name: name, threads: threads, tun: tunObserver.take(), icmp: icmp, sockets: sockets, guardians: guardians,
                silence: silence, interface: interface, finished: finished)
        } catch {
            throw Failure(explain(error))
        }
    }

    /// - Returns: false if the kernel is known not to segment UDP.
    private func negotiate(_ queue: borrowing TunDevice) throws(SystemError) -> Bool {
        let offloads = configuration.offloads
        let agreed = try queue.negotiate(tcpSegmentation: offloads.tcpSegmentation, udpSegmentation: offloads.udpSegmentation)
        if agreed.udp != offloads.udpSegmentation { log.info("this kernel has no UDP segmentation for a TUN (Linux 6.2)") }
        if agreed.tcp != offloads.tcpSegmentation { log.warning("this kernel has no TCP segmentation for a TUN") }
        return agreed.udp == offloads.udpSegmentation
    }

    private static func explain(_ shortage: BufferShortage) -> String {
        let name = shortage.buffer == .receive ? "receive" : "send"
        return
            "the sockets' \(name) buffers are \(shortage.granted >> 10) KiB in place of \(shortage.wanted >> 10): bursts may be lost"
            + " (this process is not root in the host's first user namespace; raise \(shortage.buffer.sysctl) there)"
    }

    /// The remedies for what a host may refuse.
    private func explain(_ error: SystemError) -> String {
        switch (error.call, error.code) {
        case ("ioctl(TUNSETIFF)", EBUSY):
            "cannot make \(configuration.name): an interface of that name exists (choose another name, or remove it)"
        case ("open(/dev/net/tun)", ENOENT):
            "/dev/net/tun is missing here (a container has to be given it; on a host: modprobe tun)"
        case ("open(/dev/net/tun)", ENODEV), ("open(/dev/net/tun)", ENXIO):
            "\(error) (the kernel has no tun driver: modprobe tun)"
        case ("open(/dev/net/tun)", EPERM):
            "\(error) (the device cgroup forbids it: DeviceAllow=/dev/net/tun rw of the unit, or the container's list of devices)"
        case ("open(/dev/net/tun)", EACCES):
            "\(error) (this user needs read and write access to it)"
        case ("ioctl(TUNSETOWNER)", EINVAL):
            "\(error) (this user namespace has no such uid: see /proc/self/uid_map, and give --user one of those)"
        case ("io_uring_setup", EPERM), ("io_uring_setup", ENOSYS):
            "\(error) (io_uring is switched off here: see sysctl kernel.io_uring_disabled and the container's seccomp profile)"
        case ("io_uring_register(PBUF_RING)", EINVAL), ("io_uring_setup", EINVAL):
            "\(error) (Linux 6.0 or later is needed)"
        case ("io_uring_setup", ENOMEM), ("io_uring_register(PBUF_RING)", ENOMEM):
            "\(error) (rings count as locked memory: raise ulimit -l, LimitMEMLOCK= of the unit, or use fewer --workers)"
        case ("pthread_create", EAGAIN) where ProcessSetup.lacksRoomForStack:
            "\(error) (no address space is left for a thread's stack: raise ulimit -v, or use fewer --workers)"
        case ("pthread_create", EAGAIN):
            "\(error) (raise ulimit -u, TasksMax= of the unit, or use fewer --workers)"
        case (_, ENOMEM) where error.call.hasPrefix("mmap") && ProcessSetup.addressSpaceLimit != nil:
            "\(error) (ulimit -v is \(ProcessSetup.addressSpaceLimit!) KiB: raise it, or use fewer --workers)"
        case (_, EMFILE):
            "\(error) (raise ulimit -n, LimitNOFILE= of the unit, or use fewer --workers)"
        case ("bind", EADDRNOTAVAIL):
            "cannot use the local address: no interface of this host has it any more"
        default:
            "\(error)"
        }
    }

    // MARK: Running

    /// Returns when it is time to stop: nil for a signal, else what went wrong.
    private func listen(_ opened: Opened, _ signals: borrowing SignalDescriptor, _ follower: Follower) -> String? {
        var errorLog = ErrorLog()
        var lastReport = Clock.seconds
        // For an error queue no events are asked for: POLLERR comes unasked.
        var polled =
            ([signals.rawValue, opened.finished.rawDescriptor] + follower.descriptors).map {
                pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
            } + opened.icmp.rawDescriptors.map { pollfd(fd: $0, events: 0, revents: 0) }
        while true {
            // What is to be left alone for a while is -1.
            let pause = opened.icmp.pause
            let errorQueues = opened.icmp.rawDescriptors.map { pause > 0 ? -1 : $0 }
            for (index, descriptor) in (follower.descriptors + errorQueues).enumerated() { polled[2 + index].fd = descriptor }
            let patience = follower.patience(atMost: pause > 0 ? pause : 1000)
            _ = unsafe poll(&polled, nfds_t(polled.count), Int32(patience))
            do throws(Failure) { try follower.act() } catch { return error.description }
            for entry in polled.dropFirst(2 + follower.descriptors.count) where entry.revents != 0 {
                opened.icmp.listen(to: entry.fd)
            }
            if Clock.seconds > lastReport {
                lastReport = Clock.seconds
                opened.silence?.tend()
                errorLog.report(opened.report, to: log)
            }
            if polled[1].revents != 0 {
                return endOfWorker(opened)
            }
            while let signal = signals.next() {
                if signal != SIGUSR1 { return nil }
                printCounters(opened)
            }
        }
    }

    private func endOfWorker(_ opened: Opened) -> String {
        for thread in opened.threads { thread.stop() }
        for thread in opened.threads {
            switch thread.join() {
            case .stopped: continue
            case .tunGone: return "\(opened.name) was deleted: nothing is left to read from"
            case .failed(let error): return "worker \(thread.index) cannot go on: \(error)"
            }
        }
        return "a worker ended without a reason"
    }

    private func printCounters(_ opened: Opened) {
        Output.write(opened.report.lines.map { "\($0)\n" }.joined(), to: STDOUT_FILENO)
    }
}

extension TunnelPolicy {
    /// Before the tunnel has an address: no worker runs, and no socket takes a packet.
    fileprivate static var waiting: TunnelPolicy { TunnelPolicy(local: .any, peers: .remote(.any)) }
}

extension TunnelMode {
    fileprivate var innerProtocols: [InnerProtocol] { (carriesIPv6 ? [.ipv6] : []) + (carriesIPv4 ? [.ipv4] : []) }
}
