internal import RingIO
internal import TunnelCore

/// The notes of one worker's receivers, as its stages ask for them.
final class Witness: MergeWitness, @unchecked Sendable {
    private let notes: MergeNotes

    init(_ notes: MergeNotes) { self.notes = notes }

    func beginBatch() -> Bool { notes.collect() }

    func count(of packet: RawSpan) -> PacketCount {
        guard let outer = IPv4View(packet) else { return .unknown }
        return switch notes.take(packet, outer.protocolNumber == ProtocolNumber.ipv4 ? .ipv4 : .ipv6) {
        case .none: .one
        case .segments(let size): .several(of: size)
        case .unclear: .unknown
        }
    }

    func endBatch() { notes.settle(at: Clock.nanoseconds) }
}
