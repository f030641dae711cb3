import Testing

@testable import TunnelCore

@Suite struct ICMPv6ErrorTests {
    static let us = v6("2001:db8:6464:100::1")
    // scapy: IPv6(src="2001:db8:6464:100::42", dst="2001:db8:64c8:200::2")/UDP(sport=1, dport=2)/Raw(b"abcdefgh")
    static let udp = hex(
        "600000000010114020010db8646401000000000000000042 20010db864c802000000000000000002 0001000200104653 6162636465666768")
    static let header = hex("6000000000403a4020010db864640100000000000000000120010db8646401000000000000000042")
    /// An MPLS label stack in an extension structure (RFC 4950).
    static let extensions = hex("20004db5 0008010100019140")

    /// What `emit` writes behind the virtio-net header; nil if it refuses. The pieces lie at odd places of the memory, and what is
    /// in front of the error and behind it must stay.
    static func emit(
        _ error: ICMPv6Error, about head: [UInt8], _ tail: [UInt8] = [], extensions: [UInt8] = [], quoteLength: Int = 0,
        from source: IPv6Address = us
    ) -> [UInt8]? {
        let pieces = head + [0xEE] + tail + [0xEE] + extensions + [0xEE]
        let at = pieces.count
        var packet = InvokingPacket(head: Slice(offset: 0, length: head.count))
        packet.tail = Slice(offset: head.count + 1, length: tail.count)
        if !extensions.isEmpty {
            packet.extensions = .init(
                slice: Slice(offset: head.count + tail.count + 2, length: extensions.count), quoteLength: quoteLength)
        }
        var memory = pieces + [UInt8](repeating: 0xEE, count: ICMPv6Error.longest + 1)
        let made = memory.withMutableRaw { error.emit(about: packet, from: source, in: &$0, at: at) }
        #expect(Array(memory[..<at]) == pieces && memory.last == 0xEE)
        guard let made else { return nil }
        #expect(Int(made.offset) == at && Int(made.length) <= ICMPv6Error.longest)
        #expect(memory[at..<at + 10].allSatisfy { $0 == 0 })
        return Array(memory[at + 10..<at + Int(made.length)])
    }

    // scapy: IPv6(src=us, dst=the source, hlim=64)/ICMPv6PacketTooBig(mtu=1380), /ICMPv6DestUnreach(code=3),
    // /ICMPv6TimeExceeded(code=0), each /Raw(bytes(udp))
    static let vectors: [(ICMPv6Error, [UInt8])] = [
        (.packetTooBig(mtu: 1380), hex("0200607400000564")),
        (.addressUnreachable, hex("010366d500000000")),
        (.hopLimitExceeded, hex("030064d800000000")),
    ]

    @Test(arguments: vectors)
    func emits(error: ICMPv6Error, message: [UInt8]) {
        #expect(Self.emit(error, about: Self.udp) == Self.header + message + Self.udp)
        // A segment's header and payload in two places are one packet.
        for cut in [40, 41, 48, 55, 56] {
            let (head, tail) = (Array(Self.udp[..<cut]), Array(Self.udp[cut...]))
            #expect(Self.emit(error, about: head, tail) == Self.header + message + Self.udp)
        }
    }

    // No router forwards from a link-local address.
    @Test(arguments: [
        ("2001:db8::42", "2001:db8:1::2", "2001:db8:1::2"), ("fe80::42", "2001:db8:1::2", "fe80::1"),
        ("2001:db8::42", "ff0e::1", "fe80::1"), ("2001:db8::42", "fe80::2", "fe80::1"),
    ])
    func comesFromWhereItIsForwarded(source: String, destination: String, sender: String) {
        let packet = Packets.inner(source, destination)
        let made = Self.emit(.packetTooBig(mtu: 1380), about: packet, from: v6("fe80::1"))
        let expected = Packets.inner(sender, source, next: 58, payload: [])
        #expect(made.map { Array($0[8..<40]) } == Array(expected[8..<40]))
    }

    @Test(arguments: [0, 1191, 1192, 1193, 1440, 65000])
    func isNeverLongerThan1280(payload: Int) {
        let packet = Packets.inner("2001:db8:6464:100::42", "2001:db8::2", payload: [UInt8](repeating: 7, count: payload))
        let (head, tail) = (Array(packet[..<40]), Array(packet[40...]))
        for made in [
            Self.emit(.packetTooBig(mtu: 1400), about: packet), Self.emit(.packetTooBig(mtu: 1400), about: head, tail),
        ] {
            #expect(made?.count == min(1280, 48 + packet.count))
            #expect(made.map { Array($0[48...]) } == Array(packet.prefix(1232)))
        }
    }

    // scapy: ICMPv6TimeExceeded(code=0, length=16)/Raw(bytes(udp).ljust(128, b"\0") + extensions)
    @Test func carriesExtensions() {
        var header = Self.header
        header[5] = 0x94
        let padded = Self.udp + [UInt8](repeating: 0, count: 128 - Self.udp.count)
        #expect(
            Self.emit(.hopLimitExceeded, about: Self.udp, extensions: Self.extensions, quoteLength: 128)
                == header + hex("0300548410000000") + padded + Self.extensions)
    }

    /// The quote behind which they stand must not be cut (RFC 4884 section 4.5).
    @Test func leavesOutExtensionsThatDoNotFit() {
        let packet = Packets.inner("2001:db8:6464:100::42", "2001:db8::2", payload: [UInt8](repeating: 7, count: 1300))
        for (quoteLength, fits) in [(1216, true), (1224, false), (2040, false)] {
            let made = Self.emit(.addressUnreachable, about: packet, extensions: Self.extensions, quoteLength: quoteLength)
            #expect(made.map { $0[44] == 0 } == !fits)
            #expect(made.map { Array($0[48..<48 + 1216]) } == Array(packet[..<1216]))
            #expect(made?.suffix(12).elementsEqual(Self.extensions) == fits)
        }
    }

    static let source = "2001:db8:6464:100::42"

    /// RFC 4443 section 2.4 (e).
    static let refused: [(String, [UInt8])] = [
        ("from nobody", Packets.inner("::", "2001:db8::2")),
        ("from the loopback", Packets.inner("::1", "2001:db8::2")),
        ("from a group", Packets.inner("ff02::1", "2001:db8::2")),
        ("an error", Packets.inner(source, "2001:db8::2", next: 58, payload: hex("0103000000000000"))),
        ("the last error type", Packets.inner(source, "2001:db8::2", next: 58, payload: hex("7f00000000000000"))),
        ("a redirect", Packets.inner(source, "2001:db8::2", next: 58, payload: hex("8900000000000000"))),
        (
            "an error behind an extension header",
            Packets.inner(source, "2001:db8::2", next: 60, payload: Packets.extensionHeader(next: 58) + [1, 0, 0, 0])
        ),
        ("ICMPv6 without a type", Packets.inner(source, "2001:db8::2", next: 58, payload: [])),
        ("too short for a packet", [UInt8](Packets.inner(source, "2001:db8::2")[..<39])),
        ("not IPv6", Packets.inner(source, "2001:db8::2", version: 4)),
        ("nothing", []),
    ]

    @Test(arguments: refused)
    func refuses(name: String, packet: [UInt8]) {
        #expect(Self.emit(.addressUnreachable, about: packet) == nil)
        #expect(Self.emit(.packetTooBig(mtu: 1280), about: packet) == nil)
    }

    @Test(arguments: [hex("8000000000000000"), hex("8700000000000000"), hex("8800000000000000"), hex("c800000000000000")])
    func answersInformation(message: [UInt8]) {
        #expect(
            Self.emit(.addressUnreachable, about: Packets.inner(Self.source, "2001:db8::2", next: 58, payload: message)) != nil)
    }

    /// Section 2.4 (e.3): path MTU discovery works for multicast, too.
    @Test func aboutMulticastOnlyThatItIsTooBig() {
        let packet = Packets.inner(Self.source, "ff0e::1")
        #expect(Self.emit(.addressUnreachable, about: packet) == nil)
        #expect(Self.emit(.hopLimitExceeded, about: packet) == nil)
        #expect(Self.emit(.packetTooBig(mtu: 1280), about: packet) != nil)
    }
}
