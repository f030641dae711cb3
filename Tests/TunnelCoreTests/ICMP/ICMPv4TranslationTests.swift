import Testing

@testable import TunnelCore

/// ICMPv4 errors about tunnel packets (net/ipv6/sit.c `ipip6_err`).
@Suite struct ICMPv4TranslationTests {
    /// As a router quotes it: bytes in front and behind are not the quote's.
    static func translate(
        _ policy: TunnelPolicy, _ type: UInt8, _ code: UInt8, _ quote: [UInt8], extensionOffset: Int = 0
    ) -> ErrorTranslation {
        let memory = [0xEE, 0xEE, 0xEE] + quote + [0xEE]
        return policy.translate(
            type: type, code: code, quote: Slice(offset: 3, length: quote.count), extensionOffset: extensionOffset, in: memory.raw
        )
    }

    /// Host unreachable.
    static func translate(_ policy: TunnelPolicy, _ quote: [UInt8]) -> ErrorTranslation { translate(policy, 3, 1, quote) }

    static func isIgnored(_ translation: ErrorTranslation) -> Bool { translation == .ignore }

    static let (us, peer) = ("10.100.100.1", "10.100.200.2")
    static let inner = Packets.inner("2001:db8:6464:100::42", "2001:db8:64c8:200::2", payload: Array(0..<100))
    static let sent = Packets.outer(us, peer, inner)
    static func answer(_ error: ICMPv6Error, length: Int = inner.count, offset: Int = 23) -> ErrorTranslation {
        .answer(error, about: InvokingPacket(head: Slice(offset: offset, length: length)), peer: v4(peer))
    }

    @Test func everyTypeAndCode() {
        for type in UInt8(0)...255 {
            for code in UInt8(0)...255 {
                let expected: ErrorTranslation =
                    switch (type, code) {
                    case (3, 4), (3, 5): .ignore
                    case (3, _): Self.answer(.addressUnreachable)
                    case (11, 0): Self.answer(.hopLimitExceeded)
                    default: .ignore
                    }
                #expect(Self.translate(Policies.site, type, code, Self.sent) == expected, "type \(type) code \(code)")
            }
        }
    }

    @Test func theQuoteNeedsEightBytesBehindTheInnerHeader() {
        for length in 0...Self.sent.count {
            let expected = length >= 68 ? Self.answer(.addressUnreachable, length: length - 20) : .ignore
            #expect(Self.translate(Policies.site, Array(Self.sent[..<length])) == expected, "\(length) bytes")
        }
        let options = Packets.outer(Self.us, Self.peer, Self.inner, options: Packets.fullOptions)
        #expect(Self.translate(Policies.site, options) == Self.answer(.addressUnreachable, offset: 63))
    }

    @Test func whatStandsBehindTheInnerPacketIsNotQuoted() {
        #expect(Self.translate(Policies.site, Self.sent + [1, 2, 3]) == Self.answer(.addressUnreachable))
    }

    /// The length that counts in ICMPv4 is of the outer header, too, and in units of 4 bytes.
    @Test(arguments: [(128, 128), (132, 136), (136, 136)])
    func extensions(offset: Int, padded: Int) {
        let quote = Self.sent + [UInt8](repeating: 0, count: offset - min(offset, Self.sent.count))
        let translation = Self.translate(
            Policies.site, 11, 0, Array(quote[..<offset]) + [0x20, 0, 0, 0], extensionOffset: offset)
        var packet = InvokingPacket(head: Slice(offset: 23, length: offset - 20))
        packet.extensions = .init(slice: Slice(offset: 3 + offset, length: 4), quoteLength: padded)
        #expect(translation == .answer(.hopLimitExceeded, about: packet, peer: v4(Self.peer)))
    }

    @Test(arguments: [1, 20, 60, 160, 161, 65535])
    func extensionsThatAreNotThere(offset: Int) {
        let translation = Self.translate(Policies.site, 11, 0, Self.sent, extensionOffset: offset)
        if case .answer(_, let packet, _) = translation {
            #expect(packet.extensions == nil || (offset > 68 && offset < Self.sent.count))
        } else {
            #expect(offset <= 60)
        }
    }

    struct Row: CustomTestStringConvertible {
        let name: String
        let policy: TunnelPolicy
        let from: String
        let to: String
        let source: String
        let destination: String
        let isOurs: Bool
        var testDescription: String { name }
    }

    static let (ours, theirs, elsewhere) = ("2001:db8:6464:100::42", "2001:db8:64c8:200::2", "3fff:eee::1")
    static let rows = [
        Row(name: "embedded", policy: Policies.site, from: us, to: peer, source: ours, destination: theirs, isOurs: true),
        Row(
            name: "another outer source", policy: Policies.site, from: peer, to: peer, source: ours, destination: theirs,
            isOurs: false),
        Row(
            name: "another peer", policy: Policies.site, from: us, to: "10.0.0.9", source: ours, destination: theirs,
            isOurs: false),
        Row(
            name: "a foreign source", policy: Policies.site, from: us, to: peer, source: theirs, destination: theirs,
            isOurs: false),
        Row(
            name: "a source outside", policy: Policies.site, from: us, to: peer, source: elsewhere, destination: theirs,
            isOurs: false),
        Row(name: "no source", policy: Policies.site, from: us, to: peer, source: "::", destination: theirs, isOurs: false),
        Row(name: "to ourselves", policy: Policies.site, from: us, to: us, source: ours, destination: ours, isOurs: false),
        Row(
            name: "outside, no relay", policy: Policies.site, from: us, to: peer, source: ours, destination: elsewhere,
            isOurs: false),
        Row(
            name: "a relay", policy: Policies.oneRelay, from: us, to: "192.0.2.33", source: ours, destination: elsewhere,
            isOurs: true),
        Row(
            name: "not a relay", policy: Policies.relayed, from: us, to: peer, source: ours, destination: elsewhere, isOurs: false
        ),
        Row(
            name: "a route", policy: Policies.routed, from: us, to: "192.0.2.9", source: ours, destination: "3fff:a::1",
            isOurs: true),
        Row(
            name: "a route of another", policy: Policies.routed, from: us, to: "10.1.1.1", source: ours, destination: "3fff:a::1",
            isOurs: false),
        Row(
            name: "a local prefix", policy: Policies.routed, from: us, to: peer, source: "fd00:1::9", destination: theirs,
            isOurs: true),
        Row(
            name: "by a border relay", policy: Policies.borderRelay, from: "10.0.0.1", to: peer, source: elsewhere,
            destination: theirs, isOurs: true),
        Row(name: "multicast", policy: Policies.site, from: us, to: peer, source: ours, destination: "ff0e::1", isOurs: false),
        Row(
            name: "remote", policy: Policies.remote, from: "192.0.2.1", to: "198.51.100.7", source: elsewhere,
            destination: ours, isOurs: true),
        Row(
            name: "not the remote", policy: Policies.remote, from: "192.0.2.1", to: "198.51.100.8", source: elsewhere,
            destination: ours, isOurs: false),
    ]

    @Test(arguments: rows)
    func onlyQuotesOfWhatThisHostSends(row: Row) {
        let quote = Packets.outer(row.from, row.to, Packets.inner(row.source, row.destination))
        #expect(Self.isIgnored(Self.translate(row.policy, quote)) != row.isOurs)
    }

    @Test func onlyProtocol41AndVersion6() {
        var quote = Self.sent
        quote[9] = 4
        #expect(Self.translate(Policies.site, quote) == .ignore)
        quote = Self.sent
        quote[20] = 0x45
        #expect(Self.translate(Policies.site, quote) == .ignore)
    }

    static let remoteSent = Packets.outer("192.0.2.1", "198.51.100.7", inner)

    /// Point to point, it need not be known whose packet it was.
    @Test func shortQuotesAreRemembered() {
        for length in 20..<68 {
            let quote = Array(Self.remoteSent[..<length])
            #expect(Self.translate(Policies.remote, quote) == .remember)
            #expect(Self.translate(Policies.remote, 11, 0, quote) == .remember)
            #expect(Self.translate(Policies.remote, 3, 4, quote) == .ignore)
            // The hop limit that ran out was the packet's own.
            #expect(Self.translate(Policies.remote.with(ttl: .inherit), 11, 0, quote) == .ignore)
            #expect(Self.translate(Policies.remote.with(ttl: .inherit), quote) == .remember)
        }
        #expect(Self.translate(Policies.remote, Array(Self.remoteSent[..<19])) == .ignore)
        var fragment = Self.remoteSent
        fragment[7] = 100
        #expect(Self.translate(Policies.remote, fragment) == .remember)
        let other = Packets.outer("192.0.2.1", "198.51.100.8", [])
        #expect(Self.translate(Policies.remote, other) == .ignore)
    }
}
