/// What a tunnel does in bulk; each can be switched off by itself.
public struct Offloads: Hashable, Sendable {
    /// Take TCP super-packets from the TUN and split them here.
    public var tcpSegmentation = true
    /// The same for UDP (Linux 6.2).
    public var udpSegmentation = true
    /// Merge what arrives into super-packets for the TUN.
    public var receiveMerge = true

    public init() {}

    public static var none: Offloads {
        var offloads = Offloads()
        offloads.tcpSegmentation = false
        offloads.udpSegmentation = false
        offloads.receiveMerge = false
        return offloads
    }
}
