/// Explicit congestion notification across the tunnel (RFC 6040; include/net/inet_ecn.h). The codepoint is the last two
/// bits of the IPv4 TOS byte and of the IPv6 traffic class.
public enum ECN: UInt8, Sendable, CaseIterable {
    case notECT = 0
    case ect1 = 1
    case ect0 = 2
    case ce = 3

    @inlinable
    public init(trafficClass: UInt8) {
        switch trafficClass & 3 {
        case 0: self = .notECT
        case 1: self = .ect1
        case 2: self = .ect0
        default: self = .ce
        }
    }

    /// What becomes of the inner codepoint on the outer header.
    public enum Encapsulation: String, Hashable, Sendable, CaseIterable {
        /// As the kernel, which keeps to RFC 3168's full functionality: CE goes as ECT(0) (`INET_ECN_encapsulate`), so that a mark
        /// on the outer header is always new.
        case sit
        /// RFC 6040's normal mode (section 4.1): copied, CE too.
        case rfc6040
    }

    /// The outer TOS byte: its DSCP from `tos`, its ECN from the inner traffic class.
    @inlinable
    public static func encapsulate(tos: UInt8, inner: UInt8, by rule: Encapsulation) -> UInt8 {
        let ecn = inner & 3
        return tos & ~3 | (ecn == ECN.ce.rawValue && rule == .sit ? ECN.ect0.rawValue : ecn)
    }

    /// The inner traffic class after decapsulation; nil when the packet must be dropped, since CE came on a packet whose
    /// sender would not understand it (`INET_ECN_decapsulate`). The inner DSCP is never touched.
    @inlinable
    public static func decapsulate(outer: UInt8, inner: UInt8) -> UInt8? {
        switch (ECN(trafficClass: inner), ECN(trafficClass: outer)) {
        case (.notECT, .ce): nil
        case (.ect0, .ect1): inner & ~3 | ECN.ect1.rawValue
        case (.ect0, .ce), (.ect1, .ce): inner | ECN.ce.rawValue
        default: inner
        }
    }
}
