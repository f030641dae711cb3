internal import CLinux
internal import Glibc

/// One queue of a TUN device: IPv6 packets out of and into this machine's stack, each behind a virtio-net header.
public struct TunDevice: ~Copyable, Sendable {
    public let descriptor: Descriptor

    /// The longest name of an interface, in bytes.
    public static var longestName: Int { 15 }

    private static var flags: Int32 { IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE }

    /// Opens a queue. The first one makes the device, which is gone when the last queue is closed.
    ///
    /// /dev/net/tun is often open to everybody, and a device with several queues takes a further one from anybody unless it
    /// has an owner. So the owner is set before the link can come up: others get EPERM.
    /// - Parameter owner: uid of whom the first queue's device is to belong to.
    /// - Throws: EBUSY when the first queue finds the name taken, and still taken a second later: the device of a process that
    ///   was killed goes some time after it. EPERM without CAP_NET_ADMIN.
    public static func open(_ name: String, isFirst: Bool, owner: UInt32, nonBlocking: Bool) throws(SystemError) -> TunDevice {
        if !isFirst { return try TunDevice(named: name, flags: flags, nonBlocking: nonBlocking) }
        var patience = 50
        while true {
            do throws(SystemError) {
                let device = try TunDevice(named: name, flags: flags | IFF_TUN_EXCL, nonBlocking: nonBlocking)
                try check("ioctl(TUNSETOWNER)", tund_ioctl_value(device.descriptor.rawValue, tund_TUNSETOWNER, UInt(owner)))
                return device
            } catch {
                if error.code != EBUSY || patience == 0 { throw error }
                patience -= 1
                usleep(20_000)
            }
        }
    }

    private init(named name: String, flags: Int32, nonBlocking: Bool) throws(SystemError) {
        let opened = unsafe Glibc.open("/dev/net/tun", O_RDWR | O_CLOEXEC | (nonBlocking ? O_NONBLOCK : 0))
        let descriptor = Descriptor(try check("open(/dev/net/tun)", opened))
        var request = tund_ifreq()
        request.flags = Int16(truncatingIfNeeded: flags)
        unsafe withUnsafeMutableBytes(of: &request.name) { field in
            for (index, byte) in name.utf8.prefix(Self.longestName).enumerated() { unsafe field[index] = byte }
        }
        try check("ioctl(TUNSETIFF)", unsafe tund_ioctl(descriptor.rawValue, tund_TUNSETIFF, &request))
        var headerLength: Int32 = 10
        try check("ioctl(TUNSETVNETHDRSZ)", unsafe tund_ioctl(descriptor.rawValue, tund_TUNSETVNETHDRSZ, &headerLength))
        self.descriptor = descriptor
    }

    /// Says which work the kernel may leave to us; the setting is the device's, shared by its queues. Unfinished checksums come
    /// with any segmentation. What the kernel does not know is left out.
    /// - Returns: what was agreed.
    public func negotiate(tcpSegmentation: Bool, udpSegmentation: Bool) throws(SystemError) -> (tcp: Bool, udp: Bool) {
        // Each step on its own: the kernel refuses a set that holds one unknown bit. USO4 and USO6 go only together, and
        // neither they nor TSO go without checksums (drivers/net/tun.c `set_offload`).
        let tcp = UInt(TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)
        let udp = UInt(tund_TUN_F_USO4 | tund_TUN_F_USO6)
        for wish in [(tcpSegmentation, udpSegmentation), (tcpSegmentation, false)] {
            var set: UInt = wish.0 || wish.1 ? UInt(TUN_F_CSUM) : 0
            if wish.0 { set |= tcp }
            if wish.1 { set |= udp }
            if tund_ioctl_value(descriptor.rawValue, tund_TUNSETOFFLOAD, set) == 0 { return wish }
            if errno != EINVAL { throw SystemError("ioctl(TUNSETOFFLOAD)") }
        }
        try check("ioctl(TUNSETOFFLOAD)", tund_ioctl_value(descriptor.rawValue, tund_TUNSETOFFLOAD, 0))
        return (false, false)
    }

    /// The same queue, for a thread that now and then has a packet for it.
    public func writer() throws(SystemError) -> TunWriter {
        TunWriter(Descriptor(try check("dup", fcntl(descriptor.rawValue, F_DUPFD_CLOEXEC, 0))))
    }

    /// The same queue, for the thread that configures the device.
    public func observer() throws(SystemError) -> TunObserver {
        TunObserver(Descriptor(try check("dup", fcntl(descriptor.rawValue, F_DUPFD_CLOEXEC, 0))))
    }

    /// Whether the device still exists: a descriptor outlives it.
    public static func exists(behind descriptor: Int32) -> Bool {
        var request = tund_ifreq()
        return unsafe tund_ioctl(descriptor, tund_TUNGETIFF, &request) == 0
    }
}

/// Hands single packets to a TUN.
public struct TunWriter: ~Copyable, Sendable {
    private let descriptor: Descriptor

    fileprivate init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

    /// Writes a packet, virtio-net header first; a TUN that is down loses it.
    public func write(offset: Int, length: Int, of memory: borrowing PacketMemory) {
        precondition(offset >= 0 && length >= 0 && offset + length <= memory.byteCount)
        _ = unsafe Glibc.write(descriptor.rawValue, memory.base + offset, length)
    }
}

/// Asks the kernel what has become of a TUN: others may rename it, move it to another network namespace, or delete it, and an interface
/// index says nothing about that.
public struct TunObserver: ~Copyable, Sendable {
    private let descriptor: Descriptor

    fileprivate init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

    /// Its name now; nil: it was deleted.
    public var name: String? {
        var request = tund_ifreq()
        guard unsafe tund_ioctl(descriptor.rawValue, tund_TUNGETIFF, &request) == 0 else { return nil }
        return unsafe withUnsafeBytes(of: &request.name) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// The network namespace that it is in (Linux 5.7).
    /// - Throws: EPERM without CAP_NET_ADMIN there; EINVAL from older kernels.
    public func namespace() throws(SystemError) -> NetworkNamespaceID {
        let there = Descriptor(
            try check("ioctl(TUNGETDEVNETNS)", tund_ioctl_value(descriptor.rawValue, tund_TUNGETDEVNETNS, 0)))
        return try NetworkNamespaceID(of: there)
    }
}
