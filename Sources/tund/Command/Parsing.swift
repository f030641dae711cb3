internal import ArgumentParser
internal import RingIO
internal import TunnelCore

/// Says what is wrong with an option's value; the parser puts the value and the option's name before it.
struct BadValue: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

// One function per kind of value, for the options' `transform`.
enum Parse {
    static func ipv4(_ text: String) throws -> IPv4Address {
        guard let address = IPv4Address(text) else { throw BadValue("not an IPv4 address (like 192.0.2.1)") }
        return address
    }

    /// An address that packets can be sent to.
    static func ipv4Host(_ text: String) throws -> IPv4Address {
        let address = try ipv4(text)
        guard address.isUnicastHost else { throw BadValue("not the address of a single host") }
        return address
    }

    static func ipv4Prefix(_ text: String) throws -> IPv4Prefix { try IPv4Prefix(parsing: text) }
    static func ipv6Prefix(_ text: String) throws -> IPv6Prefix { try IPv6Prefix(parsing: text) }

    /// `auto` or a host's address.
    static func local(_ text: String) throws -> LocalChoice {
        text == "auto" ? .automatic : .address(try ipv4Host(text))
    }

    /// `PREFIX=A`
    static func route(_ text: String) throws -> StaticRoute {
        let parts = text.split(separator: "=", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2 else { throw BadValue("not of the form PREFIX=IPV4 (like 2001:db8::/32=192.0.2.1)") }
        return StaticRoute(prefix: try ipv6Prefix(parts[0]), endpoint: try ipv4Host(parts[1]))
    }

    static func sourceCheck(_ text: String) throws -> SourceCheck {
        guard let check = SourceCheck(rawValue: text) else { throw BadValue("none of 'strict', 'sit', 'off'") }
        return check
    }

    static func mode(_ text: String) throws -> TunnelMode {
        if text == "mplsip" { throw BadValue("a TUN device has no MPLS (see docs/rfc.md)") }
        guard let mode = TunnelMode(rawValue: text) else { throw BadValue("none of 'ip6ip', 'ipip', 'any'") }
        return mode
    }

    /// `inherit` or 1 to 255.
    static func ttl(_ text: String) throws -> OuterField {
        if text == "inherit" { return .inherit }
        guard let value = UInt8(text), value > 0 else { throw BadValue("neither 'inherit' nor a number from 1 to 255") }
        return .fixed(value)
    }

    /// `inherit` or a byte, decimal or with 0x.
    static func tos(_ text: String) throws -> OuterField {
        if text == "inherit" { return .inherit }
        let value = text.hasPrefix("0x") ? UInt8(text.dropFirst(2), radix: 16) : UInt8(text)
        guard let value else { throw BadValue("neither 'inherit' nor a number from 0 to 255 (or 0x00 to 0xff)") }
        return .fixed(value)
    }

    /// 32 bits, decimal or with 0x.
    static func mark(_ text: String) throws -> UInt32 {
        let value = text.hasPrefix("0x") ? UInt32(text.dropFirst(2), radix: 16) : UInt32(text)
        guard let value else { throw BadValue("not a number from 0 to 4294967295 (or 0x0 to 0xffffffff)") }
        return value
    }

    static func ecn(_ text: String) throws -> ECN.Encapsulation {
        guard let rule = ECN.Encapsulation(rawValue: text) else { throw BadValue("neither 'sit' nor 'rfc6040'") }
        return rule
    }

    /// `fd:N`, a path or a name.
    static func namespace(_ text: String) throws -> NamespaceChoice {
        if text.hasPrefix("fd:") {
            guard let number = Int32(text.dropFirst(3)), number >= 0 else { throw BadValue("not a descriptor (like fd:3)") }
            return .descriptor(number)
        }
        if text.contains("/") { return .path(text) }
        if text.isEmpty || text == "." || text == ".." {
            throw BadValue("neither the name of a network namespace nor a path nor fd:N")
        }
        return .named(text)
    }

    /// `auto` or bytes.
    static func mtu(_ text: String) throws -> MTUChoice {
        if text == "auto" { return .automatic }
        guard let value = Int(text), (1280...65515).contains(value) else {
            throw BadValue("neither 'auto' nor a number from 1280 (the least IPv6 allows) to 65515")
        }
        return .bytes(value)
    }

    /// `off`, `auto` or bytes.
    static func mssClamp(_ text: String) throws -> MSSClampChoice {
        if text == "off" { return .off }
        if text == "auto" { return .automatic }
        guard let value = UInt16(text), (536...65455).contains(value) else {
            throw BadValue("neither 'off' nor 'auto' nor a number from 536 (what every IPv4 host takes) to 65455")
        }
        return .bytes(value)
    }

    /// `auto`, `none` or an address with its prefix length.
    static func address(_ text: String) throws -> AddressChoice {
        if text == "auto" { return .automatic }
        if text == "none" { return .none }
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2, let address = IPv6Address(parts[0]), let length = Int(parts[1]), (1...128).contains(length)
        else { throw BadValue("neither 'auto' nor 'none' nor IPV6/LENGTH (like fd00::1/64)") }
        if address.isMulticast || address == .unspecified || address == .loopback {
            throw BadValue("not an address that an interface can have")
        }
        return .fixed(address, prefixLength: length)
    }

    /// `NAME`, `UID`, or either with `:GROUP`.
    static func user(_ text: String) throws -> UserIdentity { try UserDatabase.ofThisHost().identity(text) }

    static let mostWorkers = 64

    /// `auto` or a number.
    static func workers(_ text: String) throws -> WorkerChoice {
        if text == "auto" { return .automatic }
        guard let value = Int(text), (1...mostWorkers).contains(value) else {
            throw BadValue("neither 'auto' nor a number from 1 to \(mostWorkers)")
        }
        return .fixed(value)
    }

    /// Microseconds, up to a second.
    static func busyPoll(_ text: String) throws -> Int {
        guard let value = Int(text), (0...1_000_000).contains(value) else {
            throw BadValue("not a number of microseconds from 0 to 1000000")
        }
        return value
    }

    /// How to read the TUN; only tests and measurements ask for the second best.
    static func tunReading(_ text: String) throws -> TunReading {
        guard let reading = TunReading(rawValue: text) else { throw BadValue("none of 'multishot', 'reads', 'burst'") }
        return reading
    }

    /// The name of an interface that exists, also an alternative one (ALTIFNAMSIZ of linux/if.h).
    static func underlayInterface(_ text: String) throws -> String {
        if (16..<128).contains(text.utf8.count), !text.utf8.contains(where: { $0 <= 32 || $0 == 127 || $0 == UInt8(ascii: "/") })
        {
            return text
        }
        return try interface(text)
    }

    /// A name the kernel would take for an interface.
    static func interface(_ text: String) throws -> String {
        let refused = text.utf8.contains { $0 <= 32 || $0 == 127 || "/:%".utf8.contains($0) }
        if text == "all" || text == "default" { throw BadValue("the kernel's word for all interfaces, no name of one") }
        if text.isEmpty || text.utf8.count > 15 || refused || text == "." || text == ".." {
            throw BadValue("not an interface name: 1 to 15 bytes without '/', ':', '%' and spaces")
        }
        return text
    }
}
