internal import Glibc
internal import Logging
internal import RingIO

/// Tells of the workers' failures without letting a storm of them become a storm of lines: each kind at most once a second,
/// with how many there were.
struct ErrorLog {
    private var reported: [Kind: UInt64] = [:]
    /// By counter.
    private var reportedPauses: [String: UInt64] = [:]

    private struct Kind: Hashable {
        var operation: PacketOperation
        var code: Int32
    }

    /// To be called once a second.
    mutating func report(_ report: CounterReport, to log: Logger) {
        for line in news(in: report) { log.warning("\(line)") }
    }

    /// What has happened since it was last called.
    mutating func news(in report: CounterReport) -> [String] {
        var lines: [String] = []
        for (operation, code, value) in report.errors {
            let kind = Kind(operation: operation, code: code)
            let news = value - reported[kind, default: 0]
            if news == 0 { continue }
            reported[kind] = value
            let times = "\(news) time\(news == 1 ? "" : "s")"
            let name = SystemError.name(of: code)
            lines.append("\(operation.name) failed \(times): \(SystemError.reason(of: code)) (\(name))")
        }
        for (counter, inner) in [("offload.paused-tcp", "TCP"), ("offload.paused-udp", "UDP")] {
            guard let value = report.packets.first(where: { $0.name == counter })?.value,
                value > reportedPauses[counter, default: 0]
            else { continue }
            reportedPauses[counter] = value
            let seconds = RefusedMerging.pause / 1_000_000_000
            lines.append("the TUN refuses merged \(inner) but takes its packets one by one: so it gets them for \(seconds) s")
        }
        return lines
    }
}
