internal import RingIO
internal import TunnelCore

/// The guardians' notes, as one worker's stages ask for them.
final class Witness: DatagramWitness, @unchecked Sendable {
    private let notes: MergeNotes
    /// The notes of this batch are in the table: the system call for that is dearer than all else here.
    private var isCollected = false

    init(_ notes: MergeNotes) { self.notes = notes }

    func beginBatch() { isCollected = false }

    func datagrams(in packet: RawSpan) -> DatagramCount {
        guard let outer = IPv4View(packet) else { return .unknown }
        let inner: InnerProtocol = outer.protocolNumber == ProtocolNumber.ipv4 ? .ipv4 : .ipv6
        let now = Clock.nanoseconds
        if !isCollected {
            notes.collect(at: now)
            isCollected = true
        }
        return switch notes.find(packet, inner, at: now) {
        case .none: .one
        case .segments(let size): .several(of: size)
        case .unclear: .unknown
        }
    }
}
