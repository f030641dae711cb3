internal import Glibc
internal import Logging
internal import RingIO

/// Tells of the workers' failures without letting a storm of them become a storm of lines: each kind at most once a second,
/// with how many there were.
struct ErrorLog {
    private var reported: [Kind: UInt64] = [:]

    private struct Kind: Hashable {
        var operation: PacketOperation
        var code: Int32
    }

    /// To be called once a second.
    mutating func report(_ report: CounterReport, to log: Logger) {
        for (operation, code, value) in report.errors {
            let kind = Kind(operation: operation, code: code)
            let news = value - reported[kind, default: 0]
            if news == 0 { continue }
            reported[kind] = value
            let times = "\(news) time\(news == 1 ? "" : "s")"
            let name = SystemError.name(of: code)
            log.warning("\(operation.name) failed \(times): \(SystemError.reason(of: code)) (\(name))")
        }
    }
}
