import Testing
import TunnelCore

@testable import tund

@Suite struct NextHopsTests {
    static let domain = try! Domain(
        prefix: IPv6Prefix(parsing: "2001:db8::/32"), relayPrefix: IPv4Prefix(parsing: "10.0.0.0/8"))

    /// `2001:db9::/32 via ::10.0.0.2, - table 77 metric 5`; a dash is a next hop without gateway.
    static func route(_ text: String) -> Route6 {
        let words = text.split(separator: " ").map(String.init)
        func number(after word: String, default value: UInt32) -> UInt32 {
            words.firstIndex(of: word).map { UInt32(words[$0 + 1])! } ?? value
        }
        let end = words.firstIndex { $0 == "table" || $0 == "metric" } ?? words.count
        return Route6(
            prefix: try! IPv6Prefix(parsing: words[0]), table: number(after: "table", default: 254),
            metric: number(after: "metric", default: 1024),
            gateways: words[2..<end].map { IPv6Address($0.filter { $0 != "," }) })
    }

    static func find(_ routes: [String]) -> NextHops {
        NextHops(
            of: routes.map(route), local: IPv4Address(10, 0, 0, 1), broadcast: IPv4Address(10, 255, 255, 255), domain: domain,
            own: [domain.delegatedPrefix(of: IPv4Address(10, 0, 0, 1))!, try! IPv6Prefix(parsing: "fd00:1::/48")])
    }

    @Test(arguments: [
        ([], []),
        (["fd00::/8 via ::10.0.0.2"], ["fd00::/8=10.0.0.2"]),
        (["::/0 via ::192.0.2.1"], ["::/0=192.0.2.1"]),
        (["fd00::/8 via -"], []),
        (["fd00::/8 via fe80::1"], []),
        (["fd00::/8 via ::1:10.0.0.2"], []),
        (["fd00::/8 via ::10.0.0.2 metric 9", "fd00::/8 via ::10.0.0.3 metric 8"], ["fd00::/8=10.0.0.3"]),
        (["fd00::/8 via ::10.0.0.2", "fd00::/8 via ::10.0.0.3"], ["fd00::/8=10.0.0.2"]),
        (["fd00::/8 via ::10.0.0.2 metric 9", "fd00::/8 via - metric 8"], []),
        (["fd00::/8 via ::10.0.0.2 table 77 metric 8", "fd00::/8 via ::10.0.0.3"], ["fd00::/8=10.0.0.3"]),
        (["fd00::/8 via ::10.0.0.2 table 77"], ["fd00::/8=10.0.0.2"]),
        (["fd00::/8 via -, ::10.0.0.3"], ["fd00::/8=10.0.0.3"]),
        (["2001::/16 via ::10.0.0.2"], ["2001::/16=10.0.0.2"]),
        (["fd00:1:0:1::/64 via ::10.0.0.2"], ["fd00:1:0:1::/64=10.0.0.2"]),
    ])
    func follows(_ routes: [String], _ expected: [String]) {
        let found = Self.find(routes)
        #expect(found.routes.map { "\($0.prefix)=\($0.endpoint)" } == expected)
        #expect(found.warnings == [])
    }

    @Test(arguments: [
        ("2001:db8::/32 via ::10.0.0.2", "in the domain"), ("2001:db8:0:200::/56 via ::10.0.0.3", "in the domain"),
        ("fd00::/8 via ::10.0.0.1", "own address"), ("fd00::/8 via ::10.255.255.255", "broadcast address"),
        ("fd00::/8 via ::127.0.0.1", "not the address of a host"), ("fd00::/8 via ::1", "not the address of a host"),
        ("fd00:1::/48 via ::10.0.0.2", "this host's own"), ("fe80::/10 via ::10.0.0.2", "never routed"),
    ])
    func warnsOfWhatItDoesNotFollow(_ route: String, _ words: String) {
        let found = Self.find([route])
        #expect(found.routes == [])
        #expect(found.warnings.count == 1 && found.warnings[0].contains(words), "\(found.warnings)")
    }

    @Test func inAVRFItsTableIsTheMainOne() {
        let routes = ["fd00::/8 via ::10.0.0.2 table 77", "fd00::/8 via ::10.0.0.3"].map(Self.route)
        let found = NextHops(
            of: routes, mainTable: 77, local: IPv4Address(10, 0, 0, 1), broadcast: nil, domain: Self.domain, own: [])
        #expect(found.routes.map(\.endpoint) == [IPv4Address(10, 0, 0, 2)])
    }

    @Test func usesTheFirstOfSeveral() {
        let found = Self.find(["fd00::/8 via ::10.0.0.2, ::10.0.0.3"])
        #expect(found.routes == [StaticRoute(prefix: try! IPv6Prefix(parsing: "fd00::/8"), endpoint: IPv4Address(10, 0, 0, 2))])
        #expect(found.warnings.count == 1 && found.warnings[0].contains("2 next hops"))
    }
}
