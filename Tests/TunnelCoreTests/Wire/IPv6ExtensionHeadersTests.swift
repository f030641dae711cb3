import Testing
import TunnelCore

@Suite struct IPv6ExtensionHeadersTests {
    struct Chain: CustomTestStringConvertible {
        let name: String
        /// The IPv6 header's next header field.
        let next: UInt8
        /// What follows the IPv6 header.
        let body: String
        let protocolNumber: UInt8
        /// From the end of the IPv6 header.
        let behind: Int
        var isFragment = false
        var isLaterFragment = false
        var hasSegmentsLeft = false
        var testDescription: String { name }
    }

    static func packet(next: UInt8, body: [UInt8]) -> [UInt8] {
        hex("60000000") + [UInt8(body.count >> 8), UInt8(body.count & 255), next, 64]
            + hex("20010db864640100 0000000000000001 20010db864c80200 0000000000000002") + body
    }

    static let udp = "04000035001003233132333435363738"
    static let tcp = "040001bb00000000000000005002200062860000"

    // scapy: IPv6()/…; offsets are where its layers begin.
    static let chains: [Chain] = [
        Chain(name: "no extension header", next: 17, body: udp, protocolNumber: 17, behind: 0),
        Chain(name: "hop-by-hop", next: 0, body: "1100010400000000" + udp, protocolNumber: 17, behind: 8),
        Chain(
            name: "hop-by-hop of 24 bytes", next: 0, body: "0602011400000000 0000000000000000 0000000000000000" + tcp,
            protocolNumber: 6, behind: 24),
        Chain(
            name: "hop-by-hop, router alert", next: 0, body: "3a00050200000100 8000581b00000000", protocolNumber: 58, behind: 8),
        Chain(name: "destination options", next: 60, body: "1100010400000000" + udp, protocolNumber: 17, behind: 8),
        Chain(
            name: "destination options of 256 bytes", next: 60, body: "111f01fa" + String(repeating: "00", count: 252) + udp,
            protocolNumber: 17, behind: 256),
        Chain(
            name: "routing, one segment left", next: 43, body: "0602000100000000 20010db800000000 0000000000000009" + tcp,
            protocolNumber: 6, behind: 24, hasSegmentsLeft: true),
        Chain(
            name: "routing, no segments left", next: 43, body: "0602000000000000 20010db800000000 0000000000000009" + tcp,
            protocolNumber: 6, behind: 24),
        Chain(
            name: "first fragment", next: 44, body: "1100000101020304" + udp, protocolNumber: 17, behind: 8, isFragment: true),
        Chain(
            name: "later fragment", next: 44, body: "110005a801020304 3132333435363738", protocolNumber: 17, behind: 8,
            isFragment: true, isLaterFragment: true),
        Chain(
            name: "atomic fragment", next: 44, body: "1100000001020304" + udp, protocolNumber: 17, behind: 8, isFragment: true),
        // RFC 8200 section 4.5: extension headers that only the destination reads follow in the first fragment.
        Chain(
            name: "first fragment, destination options behind it", next: 44, body: "3c00000101020304 1100010400000000" + udp,
            protocolNumber: 17, behind: 16, isFragment: true),
        // In a later one the same bytes are data.
        Chain(
            name: "later fragment that names destination options", next: 44, body: "3c0005a901020304 1100010400000000",
            protocolNumber: 60, behind: 8, isFragment: true, isLaterFragment: true),
        Chain(
            name: "destination options, then a first fragment", next: 60, body: "2c00010400000000 1100000101020304" + udp,
            protocolNumber: 17, behind: 16, isFragment: true),
        Chain(
            name: "authentication, ICV of 12 bytes", next: 51,
            body: "0604000000000001 00000002" + String(repeating: "55", count: 12) + tcp,
            protocolNumber: 6, behind: 24),
        Chain(
            name: "authentication, ICV of 20 bytes", next: 51,
            body: "0606000000000001 00000002" + String(repeating: "55", count: 20) + tcp,
            protocolNumber: 6, behind: 32),
        Chain(
            name: "authentication without ICV: in units of 4", next: 51, body: "1101000000000001 00000002" + udp,
            protocolNumber: 17,
            behind: 12),
        Chain(
            name: "the order of RFC 8200 section 4.1", next: 0,
            body: """
                3c00010400000000
                2b01010c00000000 0000000000000000
                3302000000000000 20010db800000000 0000000000000009
                3c04000000000001 0000000255555555 5555555555555555
                0600010400000000
                """ + tcp, protocolNumber: 6, behind: 80),
        Chain(name: "no next header", next: 0, body: "3b00010400000000", protocolNumber: 59, behind: 8),
        Chain(name: "ESP ends the chain", next: 50, body: String(repeating: "00", count: 16), protocolNumber: 50, behind: 0),
        Chain(name: "mobility", next: 135, body: "3b00000000000000", protocolNumber: 59, behind: 8),
        Chain(name: "host identity", next: 139, body: "3b01000000000000 0000000000000000", protocolNumber: 59, behind: 16),
        Chain(name: "shim6", next: 140, body: "1100000000000000" + udp, protocolNumber: 17, behind: 8),
        Chain(
            name: "IPv6 behind destination options", next: 60,
            body: "2900010400000000 6000000000003b40 20010db864640100 0000000000000001 20010db864c80200 0000000000000002",
            protocolNumber: 41, behind: 8),
        Chain(
            name: "IPv4 behind hop-by-hop", next: 0, body: "0400010400000000 450000140001000040008eadc0000201c6336407",
            protocolNumber: 4, behind: 8),

        // Cut off, by hand: the header that is not whole is the answer.
        Chain(name: "nothing behind the IPv6 header", next: 0, body: "", protocolNumber: 0, behind: 0),
        Chain(name: "7 bytes of hop-by-hop", next: 0, body: "11000104000000", protocolNumber: 0, behind: 0),
        Chain(name: "hop-by-hop longer than the packet", next: 0, body: "1101010400000000", protocolNumber: 0, behind: 0),
        Chain(
            name: "the longest there is, in a short packet", next: 60, body: "11ff010400000000" + udp, protocolNumber: 60,
            behind: 0),
        Chain(
            name: "routing past the end", next: 43, body: "0603000100000000" + udp, protocolNumber: 43, behind: 0,
            hasSegmentsLeft: true),
        Chain(name: "4 bytes of fragment", next: 44, body: "11000001", protocolNumber: 44, behind: 0),
        Chain(name: "authentication past the end", next: 51, body: "0604000000000001 00000002", protocolNumber: 51, behind: 0),
        Chain(
            name: "cut off in the second header", next: 0, body: "3c00010400000000 11010104", protocolNumber: 60, behind: 8),
        Chain(name: "the transport itself is missing", next: 0, body: "1100010400000000", protocolNumber: 17, behind: 8),

        // Long ones.
        Chain(
            name: "8 headers", next: 60, body: String(repeating: "3c00010400000000", count: 7) + "1100010400000000" + udp,
            protocolNumber: 17, behind: 64),
        Chain(
            name: "9 headers: only the packet's end ends the walk", next: 60,
            body: String(repeating: "3c00010400000000", count: 8) + "1100010400000000" + udp, protocolNumber: 17, behind: 72),
    ]

    @Test(arguments: chains)
    func walksTheChain(chain: Chain) {
        let bytes = Self.packet(next: chain.next, body: hex(chain.body))
        guard let view = IPv6View(bytes.raw) else {
            Issue.record("refused")
            return
        }
        let upper = view.upperLayer
        #expect(upper.protocolNumber == chain.protocolNumber)
        #expect(upper.offset == 40 + chain.behind)
        #expect(upper.isFragment == chain.isFragment)
        #expect(upper.isLaterFragment == chain.isLaterFragment)
        // Of a routing header that is cut off nothing is known.
        if chain.name != "routing past the end" { #expect(upper.hasSegmentsLeft == chain.hasSegmentsLeft) }
    }

    // Whatever the bytes: the offset lies in the packet, and only a walk through a fragment header says so.
    @Test func neverLeavesThePacket() {
        var random = SeededGenerator(seed: 5)
        let types: [UInt8] = [0, 43, 44, 51, 60, 135, 139, 140, 17, 41]
        for _ in 0..<3000 {
            var body = random.bytes(Int.random(in: 0...100, using: &random))
            // Mostly extension headers, mostly short ones.
            for offset in stride(from: 0, to: body.count - 1, by: 8) where random.next() % 8 != 0 {
                body[offset] = types.randomElement(using: &random)!
                body[offset + 1] &= 1
            }
            let bytes = Self.packet(next: types.randomElement(using: &random)!, body: body)
            guard let view = IPv6View(bytes.raw) else {
                Issue.record("refused")
                return
            }
            let upper = view.upperLayer
            if !(40...bytes.count).contains(upper.offset) { Issue.record("\(upper.offset) in \(bytes)") }
        }
    }
}
