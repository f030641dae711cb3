/// What becomes of a packet from the TUN.
public enum UplinkVerdict: Hashable, Sendable {
    /// Send the first `innerLength` bytes behind this outer header.
    case send(OuterHeader, innerLength: Int)
    case drop(DropReason)
}

/// What becomes of a packet from the underlay.
public enum DownlinkVerdict: Hashable, Sendable {
    /// Hand the inner packet to the TUN.
    case deliver(Delivery)
    case drop(DropReason)
}

/// The inner packet of a good packet of protocol 41 or 4.
public struct Delivery: Hashable, Sendable {
    /// From the outer header's first byte to the inner header's: the outer header's length.
    public var innerOffset: Int
    /// Padding behind it is left out (RFC 4213 section 3.6).
    public var innerLength: Int
    /// As it is to be delivered, with the congestion marks of the way (RFC 6040). IPv4's is its type of service.
    public var trafficClass: UInt8
    public var isIPv4: Bool

    @inlinable
    public init(innerOffset: Int, innerLength: Int, trafficClass: UInt8, isIPv4: Bool = false) {
        self.innerOffset = innerOffset
        self.innerLength = innerLength
        self.trafficClass = trafficClass
        self.isIPv4 = isIPv4
    }
}
