internal import Glibc
internal import TunnelCore

/// What the operator should know of this host and this process, whatever the tunnel's address will be: one line each.
enum HostWarnings {
    static func all(_ configuration: TunnelConfiguration) -> [String] {
        kernel(carriesIPv6: configuration.mode.carriesIPv6) + KernelTunnel.warnings()
            + Privileges.warnings(asUser: configuration.user)
    }

    private static func kernel(carriesIPv6: Bool) -> [String] {
        var warnings: [String] = []
        let root = "/proc/sys/net/ipv6/conf"
        if carriesIPv6, readFlag("\(root)/all/forwarding") == false {
            warnings.append(
                """
                IPv6 forwarding is off: this host itself can use the tunnel, but nothing behind it can \
                (sysctl -w net.ipv6.conf.all.forwarding=1)
                """)
        }
        if carriesIPv6 {
            for scope in ["all", "default"] where readFlag("\(root)/\(scope)/disable_ipv6") == true {
                warnings.append("IPv6 is disabled (sysctl -w net.ipv6.conf.\(scope).disable_ipv6=0)")
            }
        }
        return warnings
    }

    /// A sysctl that is 0 or not; nil if it cannot be read.
    private static func readFlag(_ path: String) -> Bool? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var byte: UInt8 = 0
        guard unsafe read(descriptor, &byte, 1) == 1 else { return nil }
        return byte != UInt8(ascii: "0")
    }
}
