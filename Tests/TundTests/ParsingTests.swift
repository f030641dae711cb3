import RingIO
import Testing
import TunnelCore

@testable import tund

@Suite struct ParsingTests {
    @Test(arguments: [
        ("inherit", OuterField.inherit), ("1", .fixed(1)), ("255", .fixed(255)),
        ("0", nil), ("256", nil), ("-1", nil), ("", nil), ("Inherit", nil), ("64 ", nil),
    ])
    func ttl(text: String, expected: OuterField?) { #expect((try? Parse.ttl(text)) == expected) }

    @Test(arguments: [
        ("inherit", OuterField.inherit), ("0", .fixed(0)), ("255", .fixed(255)), ("0x10", .fixed(16)), ("0xff", .fixed(255)),
        ("256", nil), ("0x100", nil), ("0x", nil), ("x10", nil), ("", nil),
    ])
    func tos(text: String, expected: OuterField?) { #expect((try? Parse.tos(text)) == expected) }

    @Test(arguments: [
        ("0", UInt32(0)), ("42", 42), ("0x2a", 42), ("4294967295", .max), ("0xffffffff", .max),
        ("4294967296", nil), ("0x100000000", nil), ("-1", nil), ("0x", nil), ("2a", nil), ("0x1/0xff", nil), ("", nil),
    ])
    func mark(text: String, expected: UInt32?) { #expect((try? Parse.mark(text)) == expected) }

    @Test(arguments: [
        ("blue", NamespaceChoice.named("blue")), ("/proc/1/ns/net", .path("/proc/1/ns/net")), ("./x", .path("./x")),
        ("fd:3", .descriptor(3)), ("fd", .named("fd")), ("fd:", nil), ("fd:-1", nil), ("fd:x", nil), ("", nil), ("..", nil),
    ])
    func namespace(text: String, expected: NamespaceChoice?) { #expect((try? Parse.namespace(text)) == expected) }

    @Test(arguments: [
        ("auto", MTUChoice.automatic), ("1280", .bytes(1280)), ("65515", .bytes(65515)),
        ("1279", nil), ("65516", nil), ("", nil), ("1500.0", nil),
    ])
    func mtu(text: String, expected: MTUChoice?) { #expect((try? Parse.mtu(text)) == expected) }

    @Test(arguments: [
        ("off", MSSClampChoice.off), ("auto", .automatic), ("536", .bytes(536)), ("65455", .bytes(65455)),
        ("535", nil), ("65456", nil), ("0", nil), ("", nil), ("on", nil),
    ])
    func mssClamp(text: String, expected: MSSClampChoice?) { #expect((try? Parse.mssClamp(text)) == expected) }

    @Test(arguments: [
        ("auto", AddressChoice.automatic), ("none", AddressChoice.none),
        ("fd00::1/64", .fixed(IPv6Address(high: 0xFD00 << 48, low: 1), prefixLength: 64)),
        ("fd00::1", nil), ("fd00::1/0", nil), ("fd00::1/129", nil), ("ff02::1/64", nil), ("::/64", nil), ("::1/128", nil),
        ("10.0.0.1/8", nil), ("", nil),
    ])
    func address(text: String, expected: AddressChoice?) { #expect((try? Parse.address(text)) == expected) }

    @Test(arguments: [
        ("10.0.0.1", true), ("0.0.0.0", false), ("127.0.0.1", false), ("224.0.0.1", false), ("255.255.255.255", false),
        ("240.0.0.1", false), ("10.0.0", false), ("host", false), ("::1", false),
    ])
    func host(text: String, isHost: Bool) { #expect(((try? Parse.ipv4Host(text)) != nil) == isHost) }

    @Test(arguments: [
        ("2001:db8::/32=192.0.2.1", true), ("2001:db8::/32", false), ("2001:db8::1/32=192.0.2.1", false),
        ("2001:db8::/32=192.0.2.1=1", false), ("2001:db8::/32=", false), ("=192.0.2.1", false),
        ("2001:db8::/32=224.0.0.1", false),
    ])
    func route(text: String, isRoute: Bool) { #expect(((try? Parse.route(text)) != nil) == isRoute) }

    @Test(arguments: [
        ("tund0", true), ("a", true), ("fifteen-bytes-x", true), ("sixteen-bytes-xx", false), ("", false), ("a/b", false),
        ("a b", false), ("tund%d", false), ("a:1", false), (".", false), ("..", false), ("tab\t", false),
    ])
    func interface(text: String, isName: Bool) { #expect(((try? Parse.interface(text)) != nil) == isName) }

    @Test(arguments: [
        ("ip6ip", TunnelMode.ip6ip), ("ipip", .ipip), ("any", .any), ("mplsip", nil), ("sit", nil), ("", nil),
    ])
    func mode(text: String, expected: TunnelMode?) { #expect((try? Parse.mode(text)) == expected) }

    @Test(arguments: [
        ("auto", WorkerChoice.automatic), ("1", .fixed(1)), ("64", .fixed(64)), ("0", nil), ("65", nil), ("two", nil),
    ])
    func workers(text: String, expected: WorkerChoice?) { #expect((try? Parse.workers(text)) == expected) }
}

/// `--user`, by files that hold what such files may hold.
@Suite struct UserDatabaseTests {
    static let database = UserDatabase(
        passwd: [
            "root:x:0:0:root:/root:/bin/sh", "# tund:x:1:1::/:", "", "+nis", "+nisuser:x:5:5:::", "-other::6:6:::", "short:x:7",
            "short:x:8:8",
            "bad:x:-9:9::/:", "bad:x:+9:9::/:", "bad:x:9x:9::/:", "bad:x::9::/:", "bad:x:4294967295:9::/:",
            "bad:x:4294967296:9::/:",
            "bad:x:9:4294967295::/:", ":x:10:10::/:", "long:x:11:12:\(String(repeating: "y", count: 100_000)):/:",
            "toor:x:00:0::/:",
            "tund:x:900:901:a tunnel:/nonexistent:/usr/sbin/nologin", "tund:x:1:1::/:", "nobody:x:65534:65534:", "\u{FFFD}:::::",
        ],
        group: ["root:x:0:", "+::13:", "tund:x", "tund:x:902:a,b", "tund:x:1:", "nogroup:x:65534:", "bad:x:y:"])

    @Test(arguments: [
        ("tund", (900, 901)), ("nobody", (65534, 65534)), ("short", (8, 8)), ("long", (11, 12)), ("900", (900, 901)),
        ("65534", (65534, 65534)), ("tund:nogroup", (900, 65534)), ("tund:tund", (900, 902)), ("1234:tund", (1234, 902)),
        ("1234:1235", (1234, 1235)), ("1234:0", (1234, 0)), ("4294967294:4294967294", (4_294_967_294, 4_294_967_294)),
        ("0900", (900, 901)),
    ])
    func found(text: String, ids: (UInt32, UInt32)) throws {
        let identity = try Self.database.identity(text)
        #expect(identity == UserIdentity(uid: ids.0, gid: ids.1, text: text))
    }

    /// The text, and what its error must say.
    @Test(arguments: [
        ("", "USER:GROUP"), (":", "USER:GROUP"), ("tund:", "USER:GROUP"), (":tund", "USER:GROUP"), ("a:b:c", "USER:GROUP"),
        ("a b", "USER:GROUP"), ("tund\n", "USER:GROUP"), ("root", "uid 0"), ("0", "uid 0"), ("toor", "uid 0"), ("0:900", "uid 0"),
        ("nosuch", "'nosuch'"), ("bad", "'bad'"), ("+nisuser", "/etc/passwd"), ("-other", "/etc/passwd"),
        ("# tund", "USER:GROUP"),
        ("tund:bad", "'bad'"), ("tund:nosuch", "/etc/group"), ("1234", "1234:1234"), ("4294967295", "4294967294"),
        ("99999999999999999999999", "4294967294"), ("tund:4294967295", "4294967294"), ("-1", "/etc/passwd"),
    ])
    func refused(text: String, reason: String) {
        do throws(BadValue) {
            let identity = try Self.database.identity(text)
            Issue.record("\(identity)")
        } catch {
            #expect(error.description.contains(reason), "\(error)")
        }
    }

    @Test func withoutTheFilesNumbersWork() throws {
        let none = UserDatabase(passwd: [], group: [])
        #expect(try none.identity("7:8") == UserIdentity(uid: 7, gid: 8, text: "7:8"))
        #expect(throws: BadValue.self) { try none.identity("nobody") }
    }
}
