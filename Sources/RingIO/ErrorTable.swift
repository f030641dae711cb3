internal import Synchronization

/// Where a packet's way can fail.
public enum PacketOperation: Int, CaseIterable, Sendable {
    case underlaySend
    case underlayReceive
    case tunRead
    case tunWrite

    public var name: String {
        switch self {
        case .underlaySend: "underlay-send"
        case .underlayReceive: "underlay-receive"
        case .tunRead: "tun-read"
        case .tunWrite: "tun-write"
        }
    }
}

/// How often each operation failed with each errno. One worker writes, anyone reads.
@safe
public final class ErrorTable: @unchecked Sendable {
    /// Above the last errno that Linux returns to programs (133).
    public static let codes = 134
    private let counts: UnsafeMutablePointer<Atomic<UInt64>>
    private static var size: Int { PacketOperation.allCases.count * codes }

    public init() {
        unsafe counts = .allocate(capacity: Self.size)
        for index in 0..<Self.size { unsafe (counts + index).initialize(to: Atomic(0)) }
    }

    deinit {
        unsafe counts.deinitialize(count: Self.size)
        unsafe counts.deallocate()
    }

    /// Only by the worker that owns the table: a load and a store, no locked addition.
    func count(_ operation: PacketOperation, code: Int32) {
        let code = (0..<Int32(Self.codes)).contains(code) ? Int(code) : 0
        let index = operation.rawValue * Self.codes + code
        unsafe counts[index].store(counts[index].load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    }

    public func total(_ operation: PacketOperation, code: Int32) -> UInt64 {
        unsafe counts[operation.rawValue * Self.codes + Int(code)].load(ordering: .relaxed)
    }
}
