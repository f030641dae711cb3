import ArgumentParser
import Testing
import TunnelCore

@testable import tund

@Suite struct RunCommandTests {
    static func parse(_ line: String) throws -> TunnelConfiguration {
        let words = line.split(separator: " ").map(String.init)
        let command = try #require(try Tund.parseAsRoot(["run"] + words) as? RunCommand)
        return try command.tunnelConfiguration()
    }

    @Test func defaultsAreThoseOfSit() throws {
        let configuration = try Self.parse("")
        #expect(configuration.name == "tund0")
        #expect(configuration.domain == .sixToFour)
        #expect(configuration.ttl == .fixed(64) && configuration.tos == .inherit && configuration.discoversPathMTU)
        #expect(configuration.local == .automatic && configuration.mtu == .automatic && configuration.address == .automatic)
        #expect(configuration.sourceCheck == .strict && configuration.ecn == .sit)
        #expect(configuration.workers == min(Processors.count, 4) && !configuration.pinsWorkers)
    }

    @Test func everyOptionArrives() throws {
        let line = """
            sit7 --local 10.1.0.1 --6rd-prefix fd00::/40 --6rd-relay-prefix 10.0.0.0/8 --relay 10.9.0.1 --relay 10.9.0.2 \
            --relay 10.9.0.1 --default-route --border-relay --route 2001:db8::/32=10.2.0.2 --local-prefix fd77::/48 --ttl inherit \
            --source-check off --tos 0x10 --ecn rfc6040 --no-pmtudisc --mtu 1400 --dev eth1 --fwmark 0x2a --address fd00::1/64 --workers 3 --pin \
            --no-wait --no-restore
            """
        let expected = TunnelConfiguration(
            name: "sit7", local: .address(IPv4Address(10, 1, 0, 1)), remote: nil,
            domain: try Domain(prefix: IPv6Prefix(parsing: "fd00::/40"), relayPrefix: IPv4Prefix(parsing: "10.0.0.0/8")),
            relays: [IPv4Address(10, 9, 0, 1), IPv4Address(10, 9, 0, 2)], isBorderRelay: true,
            routes: [StaticRoute(prefix: try IPv6Prefix(parsing: "2001:db8::/32"), endpoint: IPv4Address(10, 2, 0, 2))],
            localPrefixes: [try IPv6Prefix(parsing: "fd77::/48")], sourceCheck: .off, takesCompatible: true,
            hasDefaultRoute: true, ttl: .inherit, tos: .fixed(16), ecn: .rfc6040,
            discoversPathMTU: false, mtu: .bytes(1400), device: "eth1", mark: 42,
            address: .fixed(try #require(IPv6Address("fd00::1")), prefixLength: 64), workers: 3, pinsWorkers: true, waits: false,
            restores: false)
        #expect(try Self.parse(line) == expected)
    }

    @Test func modesArePointToPoint() throws {
        #expect(try Self.parse("").mode == .ip6ip)
        #expect(try Self.parse("--remote 192.0.2.1 --mode ipip").mode == .ipip)
        #expect(try Self.parse("--remote 192.0.2.1 --mode any --6rd-prefix fd00::/32").mode == .any)
    }

    @Test func anISATAPLinkHasNoDomain() throws {
        let configuration = try Self.parse("--isatap --prl 10.0.0.9 --prl 10.0.0.9 --isatap-prefix fd00::/64 --source-check sit")
        #expect(configuration.domain == nil && !configuration.takesCompatible)
        #expect(
            configuration.isatap
                == ISATAPLink(prefixes: [try IPv6Prefix(parsing: "fd00::/64")], routers: [IPv4Address(10, 0, 0, 9)]))
    }

    @Test func aRemoteHasNoDomainUnlessAPrefixIsGiven() throws {
        #expect(try Self.parse("--remote 192.0.2.1").domain == nil)
        #expect(try Self.parse("--remote 192.0.2.1 --6rd-prefix fd00::/32").domain != nil)
    }

    /// The command line, and words that its error must hold: the option at fault first.
    @Test(arguments: [
        ("--remote 10.0.0.2 --relay 10.0.0.3", ["--relay", "--remote"]),
        ("--remote 10.0.0.2 --border-relay", ["--border-relay", "--remote"]),
        ("--remote 10.0.0.2 --route fd00::/64=10.0.0.3", ["--route", "--remote"]),
        ("--remote 10.0.0.2 --local-prefix fd00::/64", ["--local-prefix", "--remote"]),
        ("--remote 10.0.0.2 --6rd-relay-prefix 10.0.0.0/8", ["--6rd-relay-prefix", "--6rd-prefix"]),
        ("--remote 10.0.0.2 --v4-compatible", ["--v4-compatible", "--remote"]),
        ("--isatap --remote 10.0.0.2", ["--remote", "--isatap"]),
        ("--isatap --6rd-prefix fd00::/32", ["--6rd-prefix", "--isatap-prefix"]),
        ("--isatap --6rd-relay-prefix 10.0.0.0/8", ["--6rd-relay-prefix", "--isatap"]),
        ("--isatap --relay 10.0.0.2", ["--relay", "--prl"]),
        ("--isatap --v4-compatible", ["--v4-compatible", "--isatap"]),
        ("--isatap --isatap-prefix fd00::/48", ["--isatap-prefix", "/64"]),
        ("--isatap --isatap-prefix fe80::/64", ["--isatap-prefix", "fe80::/64"]),
        ("--isatap --default-route", ["--default-route", "--prl"]),
        ("--isatap --local 10.0.0.1 --prl 10.0.0.1", ["--prl", "--local"]),
        ("--prl 10.0.0.2", ["--prl", "--isatap"]),
        ("--isatap-prefix fd00::/64", ["--isatap-prefix", "--isatap"]),
        ("--remote 10.0.0.2 --local 10.0.0.2", ["--remote", "--local"]),
        ("--mode ipip", ["--mode ipip", "--remote"]),
        ("--mode any --6rd-prefix fd00::/32", ["--mode any", "--remote"]),
        ("--mode mplsip --remote 10.0.0.2", ["--mode", "MPLS"]),
        ("--mode ipip --remote 10.0.0.2 --6rd-prefix fd00::/32", ["--6rd-prefix", "--mode ipip"]),
        ("--mode ipip --remote 10.0.0.2 --default-route", ["--default-route", "--mode ipip"]),
        ("--mode ipip --remote 10.0.0.2 --address fd00::1/64", ["--address", "--mode ipip"]),
        ("--default-route", ["--default-route", "--relay"]),
        ("--6rd-prefix fd00::/40", ["--6rd-prefix", "/72", "/64"]),
        ("--6rd-prefix fd00::1/32", ["--6rd-prefix", "fd00::/32"]),
        ("--6rd-relay-prefix 10.0.0.1/8", ["--6rd-relay-prefix", "10.0.0.0/8"]),
        ("--6rd-relay-prefix 10.0.0.0/33", ["--6rd-relay-prefix", "0 to 32"]),
        ("--local 192.168.0.1 --6rd-relay-prefix 10.0.0.0/8", ["--local", "10.0.0.0/8"]),
        ("--local 10.0.0.1 --relay 10.0.0.1", ["--relay", "--local"]),
        ("--local 10.0.0.1 --route fd00::/8=10.0.0.1", ["--route", "own address"]),
        ("--local 10.0.0.1 --route fe80::/64=10.0.0.2", ["--route", "fe80::/64"]),
        ("--local 10.0.0.1 --local-prefix ff02::/16", ["--local-prefix", "ff02::/16"]),
        ("--mtu 1279", ["--mtu", "1280"]),
        ("--ttl 0", ["--ttl", "inherit"]),
        ("--tos 256", ["--tos", "255"]),
        ("--workers 0", ["--workers", "1 to 64"]),
        ("--local localhost", ["--local", "IPv4"]),
        ("a-name-that-is-too-long", ["name", "15"]),
        ("--unknown", ["--unknown"]),
    ])
    func errorsNameTheOptionAndTheReason(line: String, words: [String]) throws {
        do {
            _ = try Self.parse(line)
            Issue.record("accepted: \(line)")
        } catch {
            let message = Tund.message(for: error)
            for word in words { #expect(message.contains(word), "\(message)") }
            #expect(Tund.exitCode(for: error).rawValue == 64)
        }
    }

    @Test func whatFailsWhileRunningExitsWith1() {
        #expect(Tund.exitCode(for: Failure("no route")).rawValue == 1)
    }
}
