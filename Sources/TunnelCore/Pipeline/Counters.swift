/// What one worker counts. It alone writes them; others see copies that it publishes.
public struct Counters: Sendable {
    /// Handed on: sent to the underlay, or written to the TUN. Bytes are those of the inner packets, as sit counts them.
    public var uplinkPackets: UInt64 = 0
    public var uplinkBytes: UInt64 = 0
    public var downlinkPackets: UInt64 = 0
    public var downlinkBytes: UInt64 = 0
    /// Super-packets of the TUN that were cut, and ones that were made for it.
    public var splitPackets: UInt64 = 0
    public var mergedPackets: UInt64 = 0
    /// Made ones that the TUN refused; they went again one by one.
    public var refusedMerges: UInt64 = 0
    /// How often merging of a protocol paused because of that.
    public var tcpMergingPauses: UInt64 = 0
    public var udpMergingPauses: UInt64 = 0
    /// ICMPv6 errors sent inward, and those that the limit held back.
    public var packetTooBigs: UInt64 = 0
    public var unreachables: UInt64 = 0
    public var timeExceededs: UInt64 = 0
    public var heldBackErrors: UInt64 = 0
    @usableFromInline var drops = InlineArray<48, UInt64>(repeating: 0)

    public init() {
        precondition(DropReason.count <= 48)
    }

    @inlinable
    public mutating func count(_ reason: DropReason) { unsafe drops[unchecked: Int(reason.rawValue)] &+= 1 }

    @inlinable
    public subscript(reason: DropReason) -> UInt64 { drops[Int(reason.rawValue)] }

    /// Every number in a fixed order, for publishing and adding up: the totals, then the drops by raw value.
    @inlinable public static var fieldCount: Int { 13 + DropReason.count }
    @inlinable
    public subscript(field index: Int) -> UInt64 {
        get {
            switch index {
            case 0: uplinkPackets
            case 1: uplinkBytes
            case 2: downlinkPackets
            case 3: downlinkBytes
            case 4: splitPackets
            case 5: mergedPackets
            case 6: refusedMerges
            case 7: packetTooBigs
            case 8: unreachables
            case 9: timeExceededs
            case 10: heldBackErrors
            case 11: tcpMergingPauses
            case 12: udpMergingPauses
            default: drops[index - 13]
            }
        }
        set {
            switch index {
            case 0: uplinkPackets = newValue
            case 1: uplinkBytes = newValue
            case 2: downlinkPackets = newValue
            case 3: downlinkBytes = newValue
            case 4: splitPackets = newValue
            case 5: mergedPackets = newValue
            case 6: refusedMerges = newValue
            case 7: packetTooBigs = newValue
            case 8: unreachables = newValue
            case 9: timeExceededs = newValue
            case 10: heldBackErrors = newValue
            case 11: tcpMergingPauses = newValue
            case 12: udpMergingPauses = newValue
            default: drops[index - 13] = newValue
            }
        }
    }
}
