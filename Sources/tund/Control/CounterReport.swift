internal import RingIO
internal import TunnelCore

/// All counters of a tunnel at one moment, added up over its workers.
struct CounterReport: Equatable {
    var packets: [(name: String, value: UInt64)] = []
    var drops: [(reason: DropReason, value: UInt64)] = []
    var errors: [(operation: PacketOperation, code: Int32, value: UInt64)] = []
    /// Packets that found a receive buffer full.
    var overflows: UInt64 = 0
    /// By the names and the meaning that a sit interface gives them: each again counts what stands above.
    var sit: [(counter: SitCounter, value: UInt64)] = []
    /// ICMP errors about packets of ours, by type and code.
    var icmp: [(type: UInt8, code: UInt8, value: UInt64)] = []

    init(_ counters: [Counters], _ tables: [ErrorTable], overflows: UInt64 = 0, icmp: [ICMPKind: UInt64] = [:]) {
        self.overflows = overflows
        func total(_ value: (Counters) -> UInt64) -> UInt64 { counters.reduce(0) { $0 &+ value($1) } }
        packets = [
            ("uplink.packets", total(\.uplinkPackets)), ("uplink.bytes", total(\.uplinkBytes)),
            ("downlink.packets", total(\.downlinkPackets)), ("downlink.bytes", total(\.downlinkBytes)),
        ]
        let bulk = [
            ("offload.split", total(\.splitPackets)), ("offload.merged", total(\.mergedPackets)),
            ("offload.refused", total(\.refusedMerges)),
            ("offload.paused-tcp", total(\.tcpMergingPauses)), ("offload.paused-udp", total(\.udpMergingPauses)),
            ("answer.too-big", total(\.packetTooBigs)), ("answer.unreachable", total(\.unreachables)),
            ("answer.time-exceeded", total(\.timeExceededs)), ("answer.held-back", total(\.heldBackErrors)),
        ]
        packets += bulk.filter { $0.1 > 0 }
        for reason in DropReason.allCases {
            let value = total { $0[reason] }
            if value > 0 { drops.append((reason, value)) }
        }
        for operation in PacketOperation.allCases {
            for code in 0..<Int32(ErrorTable.codes) {
                let value = tables.reduce(0) { $0 &+ $1.total(operation, code: code) }
                if value > 0 { errors.append((operation, code, value)) }
            }
        }
        var sums: [SitCounter: UInt64] = [
            .sentPackets: packets[0].value, .sentBytes: packets[1].value,
            .receivedPackets: packets[2].value, .receivedBytes: packets[3].value,
        ]
        for (reason, value) in drops {
            for counter in SitCounter.counters(of: reason) { sums[counter, default: 0] &+= value }
        }
        for (operation, code, value) in errors {
            for counter in SitCounter.counters(of: operation, code: code) { sums[counter, default: 0] &+= value }
        }
        sit = SitCounter.allCases.map { ($0, sums[$0] ?? 0) }
        self.icmp = icmp.sorted { ($0.key.type, $0.key.code) < ($1.key.type, $1.key.code) }
            .map { ($0.key.type, $0.key.code, $0.value) }
    }

    static func == (left: Self, right: Self) -> Bool { left.lines == right.lines }

    /// One counter a line: kind, name, number; what stands behind `#` is for people.
    var lines: [String] {
        packets.map { "counter \($0.name) \($0.value)" }
            + drops.map { "drop \($0.reason.name) \($0.value) # \($0.reason.text)" }
            + (overflows == 0
                ? []
                : ["drop downlink.overflow \(overflows) # the receive buffer was full (with several workers, at most so many)"])
            + errors.map {
                "error \($0.operation.name).\(SystemError.name(of: $0.code)) \($0.value) # \(SystemError.reason(of: $0.code))"
            }
            + icmp.map { "error icmp.\($0.type)/\($0.code) \($0.value) # ICMP \(ICMPKind(type: $0.type, code: $0.code))" }
            + sit.map { "sit \($0.counter.rawValue) \($0.value)" }
    }
}

/// An ICMPv4 error's type and code.
struct ICMPKind: Hashable, CustomStringConvertible {
    var type: UInt8
    var code: UInt8

    var description: String {
        switch (type, code) {
        case (ICMPv4Type.destinationUnreachable, 0): "network unreachable"
        case (ICMPv4Type.destinationUnreachable, 1): "host unreachable"
        case (ICMPv4Type.destinationUnreachable, 2): "protocol unreachable: nobody takes protocol 41 there"
        case (ICMPv4Type.destinationUnreachable, 3): "port unreachable"
        case (ICMPv4Type.destinationUnreachable, 4): "fragmentation needed"
        case (ICMPv4Type.destinationUnreachable, 9), (ICMPv4Type.destinationUnreachable, 10),
            (ICMPv4Type.destinationUnreachable, 13):
            "prohibited"
        case (ICMPv4Type.destinationUnreachable, _): "destination unreachable"
        case (ICMPv4Type.timeExceeded, 0): "time to live exceeded"
        case (ICMPv4Type.timeExceeded, _): "reassembly time exceeded"
        case (ICMPv4Type.parameterProblem, _): "parameter problem"
        default: "type \(type)"
        }
    }
}
