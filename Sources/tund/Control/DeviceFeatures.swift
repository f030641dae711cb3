internal import CLinux
internal import Glibc

/// Features of a network interface, by the names that `ethtool -k` has for them (ETHTOOL_GFEATURES).
enum DeviceFeatures {
    /// Merging on arrival that cannot be told from single packets without notes.
    static let untold = ["rx-gro-list", "rx-udp-gro-forwarding"]

    /// One warning for each interface that is up and merges so. To be called in the underlay's namespace.
    static func warnings() -> [String] {
        let socket = Glibc.socket(AF_INET, tund_SOCK_DGRAM | tund_SOCK_CLOEXEC, 0)
        if socket < 0 { return [] }
        defer { close(socket) }
        return upInterfaces().compactMap { name in
            let on = active(on: name, untold, socket)
            if on.isEmpty { return nil }
            let remedy = on.map { "\($0) off" }.joined(separator: " ")
            return "\(name) merges what arrives (\(on.joined(separator: ", "))), and without notes packets are lost by that: "
                + "ethtool -K \(name) \(remedy)"
        }
    }

    private static func upInterfaces() -> [String] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard unsafe getifaddrs(&first) == 0 else { return [] }
        defer { unsafe freeifaddrs(first) }
        var names: [String] = []
        var next = unsafe first
        while let entry = unsafe next {
            let name = unsafe String(cString: entry.pointee.ifa_name)
            let flags = unsafe entry.pointee.ifa_flags
            if flags & UInt32(IFF_UP) != 0, flags & UInt32(IFF_LOOPBACK) == 0, !names.contains(name) {
                names.append(name)
            }
            unsafe next = entry.pointee.ifa_next
        }
        return names
    }

    /// Those of the features that are on.
    private static func active(on interface: String, _ wanted: [String], _ socket: Int32) -> [String] {
        // The kernel's list of names, and their number in front of it.
        let nameLength = Int(tund_ETH_GSTRING_LEN)
        let mask = UInt32(1) << UInt32(tund_ETH_SS_FEATURES)
        // The mask is one number of 64 bits.
        let words = UInt16(littleEndian: 1) == 1 ? [mask, 0] : [0, mask]
        guard let count = ask(interface, [tund_ETHTOOL_GSSET_INFO, 0] + words, room: 4, socket)?[4],
            count > 0, count < 4096,
            let strings = ask(
                interface, [tund_ETHTOOL_GSTRINGS, UInt32(tund_ETH_SS_FEATURES), count], room: Int(count) * nameLength, socket)
        else { return [] }
        let names = unsafe strings.withUnsafeBytes { bytes in
            (0..<Int(count)).map { index in
                let name = unsafe bytes[12 + index * nameLength..<12 + (index + 1) * nameLength]
                return unsafe String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
            }
        }
        // Four words for each 32 features: available, requested, active, never changed.
        let blocks = (Int(count) + 31) / 32
        guard let features = ask(interface, [tund_ETHTOOL_GFEATURES, UInt32(blocks)], room: blocks * 16, socket) else {
            return []
        }
        return wanted.filter { feature in
            guard let bit = names.firstIndex(of: feature) else { return false }
            return features[2 + bit / 32 * 4 + 2] >> UInt32(bit % 32) & 1 != 0
        }
    }

    /// - Parameters:
    ///   - command: its words.
    ///   - room: bytes that the answer needs behind them.
    /// - Returns: the command with what the kernel made of it; nil where the interface does not know.
    private static func ask(_ interface: String, _ command: [UInt32], room: Int, _ socket: Int32) -> [UInt32]? {
        var words = command + [UInt32](repeating: 0, count: (room + 3) / 4)
        var name = Array(interface.utf8CString)
        let result = unsafe words.withUnsafeMutableBytes { words in
            unsafe name.withUnsafeMutableBufferPointer { unsafe tund_ethtool(socket, $0.baseAddress, words.baseAddress) }
        }
        return result < 0 ? nil : words
    }
}
