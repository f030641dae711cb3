internal import Glibc
internal import RingIO
internal import TunnelCore

/// Point to point: keeps the kernel from telling other hosts than the remote that there is no such protocol here (RFC 4213 section
/// 3.6: what comes from others is dropped without an answer).
///
/// The tunnel's sockets are connected to the remote, so a stranger's packet finds none of them. One that is bound only would do, but
/// each of those costs every packet on the address a copy. So among all point-to-point tunnels on an address one has it: that of the
/// process which holds a certain name, an abstract Unix socket's. Such a name belongs to a network namespace, as packets do, and ends
/// with its process; the others ask for it once a second. Any user can take it: then strangers hear from the kernel, as they do
/// from a host without tunnels.
final class Silence {
    private let silencers: [(inner: InnerProtocol, socket: RawListener)]
    private let device: String
    private var local: IPv4Address?
    /// By silencer; each for one address.
    private var names: [(socket: AbstractSocket?, text: String)]

    /// In the underlay's network namespace.
    init(_ protocols: [InnerProtocol], _ scope: UnderlayScope) throws(SystemError) {
        silencers = try protocols.map { inner throws(SystemError) in (inner, try .silencer(inner, scope)) }
        device = scope.interface.map { String($0.index) } ?? ""
        names = protocols.map { _ in (try? AbstractSocket(), "") }
    }

    var rawDescriptors: [Int32] { silencers.flatMap(\.socket.rawDescriptors) }

    /// Goes over to a local address. Another than the first one: in the underlay's network namespace.
    func bind(to local: IPv4Address) throws(SystemError) {
        if local == self.local { return }
        for silencer in silencers { try silencer.socket.rest() }
        for (index, silencer) in silencers.enumerated() {
            if self.local != nil { names[index].socket = try? AbstractSocket() }
            names[index].text = "tund-silence/\(silencer.inner.rawValue)/\(local)/\(device)"
        }
        self.local = local
        tend()
    }

    /// To be called once a second.
    func tend() {
        guard let local else { return }
        for (silencer, name) in zip(silencers, names) {
            // Where the address is gone for now there is nobody to be answered.
            if let socket = name.socket, socket.hasName || socket.take(name.text) == 0 {
                try? silencer.socket.bind(to: local.rawValue)
            }
        }
    }
}
