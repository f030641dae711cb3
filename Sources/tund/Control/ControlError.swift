internal import Glibc

/// A step of the set-up that failed, told so that the operator can act on it: what was tried and on what, why it failed, and
/// what to do about it where that is known.
struct ControlError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Completes "cannot …": `set the MTU of tund0 to 1480`.
    let attempt: String
    /// The kernel's own words where it gave any.
    let reason: String
    /// What the operator can do.
    let remedy: String?
    /// The errno behind `reason`, if the kernel refused.
    let code: Int32?
    /// Time may mend it: an address that is still to come.
    let isTransient: Bool

    init(_ attempt: String, reason: String, remedy: String? = nil, code: Int32? = nil, isTransient: Bool = false) {
        self.attempt = attempt
        self.reason = reason
        self.remedy = remedy
        self.code = code
        self.isTransient = isTransient
    }

    /// An errno as the reason. EPERM has one remedy everywhere here, and brings it along.
    init(_ attempt: String, code: Int32, remedy: String? = nil) {
        let text = unsafe String(cString: strerror(code))
        self.init(attempt, reason: text, remedy: remedy ?? (code == EPERM ? "needs CAP_NET_ADMIN" : nil), code: code)
    }

    var description: String {
        "cannot \(attempt): \(reason)" + (remedy.map { " (\($0))" } ?? "")
    }
}
