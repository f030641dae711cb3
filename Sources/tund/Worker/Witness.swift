internal import RingIO
internal import TunnelCore

/// The guardians' notes, as the stages ask for them.
final class Witness: DatagramWitness {
    private let notes: MergeNotes

    init(_ notes: MergeNotes) { self.notes = notes }

    func datagrams(in packet: RawSpan) -> DatagramCount {
        guard let outer = IPv4View(packet) else { return .unknown }
        let inner: InnerProtocol = outer.protocolNumber == ProtocolNumber.ipv4 ? .ipv4 : .ipv6
        return switch notes.find(packet, inner, at: Clock.nanoseconds) {
        case .none: .one
        case .segments(let size): .several(of: size)
        case .unclear: .unknown
        }
    }
}
