import CLiburing
import CLinux
import Glibc
import Testing

@testable import RingIO

@Suite struct MergeNoteTableTests {
    enum Step {
        case note(Int, of: UInt64, at: UInt64)
        /// Notes were lost.
        case loss(at: UInt64)
        case pause(until: UInt64)
        case ask(Int, at: UInt64, MergeNotes.Note)
    }

    struct Row: CustomTestStringConvertible {
        let testDescription: String
        let steps: [Step]

        init(_ name: String, _ steps: Step...) { (testDescription, self.steps) = (name, steps) }
    }

    /// Packets of which each begins a little differently.
    static func head(_ number: Int) -> MergeNoteTable.Head {
        var head = MergeNoteTable.Head(repeating: 0x4500_0000_0000_0000)
        head[number % 8] ^= UInt64(number + 1)
        return head
    }

    static let patience: UInt64 = 1_000_000_000
    static let start = 100 * patience

    static let rows = [
        Row("nobody noted it", .ask(1, at: start, .none)),
        Row(
            "a note is good once", .note(1, of: 1200, at: start), .ask(1, at: start, .segments(of: 1200)),
            .ask(1, at: start, .none)),
        Row(
            "two packets", .note(1, of: 1200, at: start), .note(2, of: 50, at: start), .ask(2, at: start, .segments(of: 50)),
            .ask(3, at: start, .none), .ask(1, at: start, .segments(of: 1200))),
        Row(
            "two alike", .note(1, of: 1200, at: start), .note(1, of: 1200, at: start), .ask(1, at: start, .segments(of: 1200)),
            .ask(1, at: start, .segments(of: 1200)), .ask(1, at: start, .none)),
        Row(
            "two alike, one after the other", .note(1, of: 1200, at: start), .ask(1, at: start, .segments(of: 1200)),
            .note(1, of: 50, at: start), .ask(1, at: start, .segments(of: 50)), .ask(1, at: start, .none)),
        Row(
            "two alike that contradict each other", .note(1, of: 1200, at: start), .note(1, of: 50, at: start),
            .note(2, of: 50, at: start), .ask(1, at: start, .unclear), .ask(1, at: start, .unclear), .ask(1, at: start, .none),
            .ask(2, at: start, .segments(of: 50))),
        Row(
            "three, of which one contradicts", .note(1, of: 1200, at: start), .note(1, of: 50, at: start),
            .note(1, of: 1200, at: start), .ask(1, at: start, .unclear), .ask(1, at: start, .unclear),
            .ask(1, at: start, .unclear), .ask(1, at: start, .none)),
        Row(
            "then it begins anew", .note(1, of: 1200, at: start), .note(1, of: 50, at: start), .ask(1, at: start, .unclear),
            .ask(1, at: start, .unclear), .note(1, of: 50, at: start), .ask(1, at: start, .segments(of: 50))),
        Row(
            "kept for a while", .note(1, of: 1200, at: start), .note(2, of: 50, at: start + patience + 1),
            .ask(1, at: start + patience + 1, .segments(of: 1200)), .ask(1, at: start + patience + 1, .none),
            .ask(2, at: start + patience + 1, .segments(of: 50))),
        Row(
            "forgotten then", .note(1, of: 1200, at: start), .note(2, of: 50, at: start + patience + 1),
            .note(3, of: 70, at: start + 2 * patience + 2), .ask(1, at: start + 2 * patience + 2, .none),
            .ask(2, at: start + 2 * patience + 2, .segments(of: 50)), .ask(3, at: start + 2 * patience + 2, .segments(of: 70))),
        Row(
            "not before its time", .note(1, of: 1200, at: start), .note(2, of: 50, at: start + patience),
            .note(3, of: 70, at: start + patience + 1), .note(4, of: 90, at: start + 2 * patience + 1),
            .ask(2, at: start + 2 * patience + 1, .segments(of: 50))),
        Row(
            "two alike, of two times", .note(1, of: 1200, at: start), .note(1, of: 1200, at: start + patience + 1),
            .ask(1, at: start + patience + 1, .segments(of: 1200)), .ask(1, at: start + patience + 1, .segments(of: 1200)),
            .ask(1, at: start + patience + 1, .none)),
        Row(
            "two alike, of two times, that contradict each other", .note(1, of: 1200, at: start),
            .note(1, of: 50, at: start + patience + 1), .ask(1, at: start + patience + 1, .unclear),
            .ask(1, at: start + patience + 1, .unclear), .ask(1, at: start + patience + 1, .none)),
        Row(
            "the contradiction is forgotten, too", .note(1, of: 1200, at: start), .note(1, of: 50, at: start),
            .note(1, of: 50, at: start + patience + 1), .ask(1, at: start + patience + 1, .unclear),
            .ask(1, at: start + patience + 1, .unclear), .ask(1, at: start + patience + 1, .segments(of: 50))),
        Row(
            "forgotten without another note", .note(1, of: 1200, at: start), .pause(until: start + patience),
            .pause(until: start + patience + 1), .pause(until: start + 2 * patience + 1), .ask(1, at: start, .segments(of: 1200)),
            .note(1, of: 1200, at: start), .pause(until: start + 2 * patience + 2), .pause(until: start + 4 * patience),
            .ask(1, at: start + 4 * patience, .none)),
        Row(
            "time goes back", .note(1, of: 1200, at: start), .note(2, of: 50, at: start - 1),
            .note(3, of: 70, at: start - patience),
            .ask(1, at: start, .segments(of: 1200)), .ask(2, at: start, .segments(of: 50))),
        Row(
            "after a loss", .note(1, of: 1200, at: start), .loss(at: start), .ask(2, at: start, .unclear),
            .ask(1, at: start, .segments(of: 1200)), .ask(1, at: start, .unclear), .ask(2, at: start + patience - 1, .unclear),
            .ask(2, at: start + patience, .none)),
        Row(
            "after two", .loss(at: start), .loss(at: start + patience / 2), .ask(1, at: start + patience, .unclear),
            .ask(1, at: start + patience + patience / 2, .none)),
    ]

    @Test(arguments: rows)
    func notesAreFoundWhileTheyAreGood(row: Row) {
        var table = MergeNoteTable(capacity: 10)
        for (index, step) in row.steps.enumerated() {
            switch step {
            case .note(let number, let size, let time): table.add(Self.head(number), segmentSize: size, at: time)
            case .loss(let time): table.isIncomplete(at: time)
            case .pause(let time): table.age(at: time)
            case .ask(let number, let time, let expected):
                let answer = table.take(Self.head(number), at: time)
                #expect(answer == expected, "step \(index)")
            }
        }
    }

    /// Of a head, all counts.
    @Test func noBitOfTheHeadIsOverlooked() {
        let head = Self.head(0)
        for bit in 0..<512 as Range<UInt64> {
            var table = MergeNoteTable(capacity: 10)
            table.add(head, segmentSize: 1200, at: Self.start)
            var other = head
            other[Int(bit / 64)] ^= 1 << (bit % 64)
            let (theOther, itself) = (table.take(other, at: Self.start), table.take(head, at: Self.start))
            #expect(theOther == .none && itself == .segments(of: 1200), "bit \(bit)")
        }
    }

    /// Of a full table the younger half is kept; whoever asks about the rest hears that notes were lost.
    @Test(arguments: [1, 10, 100])
    func aFullTableForgetsTheOldest(capacity: Int) {
        for count in [capacity, 2 * capacity, 2 * capacity + 1, 3 * capacity, 9 * capacity + capacity / 2 + 1] {
            var table = MergeNoteTable(capacity: capacity)
            for number in 0..<count { table.add(Self.head(number), segmentSize: UInt64(number + 1), at: Self.start) }
            // Two halves, of which the younger one is not empty.
            let kept = min(count, capacity + (count - 1) % capacity + 1)
            for number in 0..<count {
                let answer = table.take(Self.head(number), at: Self.start)
                #expect(answer == (number < count - kept ? .unclear : .segments(of: number + 1)), "\(number) of \(count)")
            }
            let (soon, later) = (Self.start + Self.patience - 1, Self.start + Self.patience)
            let answers = [soon, later].map { table.take(Self.head(count), at: $0) }
            #expect(answers == [kept < count ? .unclear : .none, .none], "\(count)")
        }
    }

    @Test func thoseAlikeTakeNoRoom() {
        var table = MergeNoteTable(capacity: 3)
        for _ in 0..<100 {
            for number in 0..<2 { table.add(Self.head(number), segmentSize: 1200, at: Self.start) }
        }
        for _ in 0..<100 {
            let answers = (0..<2).map { table.take(Self.head($0), at: Self.start) }
            #expect(answers == [.segments(of: 1200), .segments(of: 1200)])
        }
        let answer = table.take(Self.head(0), at: Self.start)
        #expect(answer == .none)
    }
}

/// Needs CAP_BPF.
private let canTakeNotes = (try? MergeNotes()) != nil

/// The kernel runs the filters here.
@Suite(.enabled(if: canTakeNotes)) struct MergeNotesTests {
    static let localhost: UInt32 = 0x7F00_0001

    @Test(arguments: [InnerProtocol.ipv6, .ipv4])
    func aGuardianTakesNotes(inner: InnerProtocol) throws {
        let notes = try MergeNotes()
        let guardian = try RawListener.guardian(inner, UnderlayScope(), isRenumbered: false)
        try notes.attach(to: guardian, inner)
        try guardian.bind(to: Self.localhost)
        for length in [0, 47, 48, 63, 64, 1500] {
            let note = notes.find([UInt8](repeating: 0x45, count: length), inner)
            #expect(note == .none, "\(length) bytes")
        }
    }

    @Test func whatIsNoSocketTakesNone() throws {
        let notes = try MergeNotes()
        #expect(throws: SystemError("setsockopt(SO_ATTACH_BPF)", code: EBADF)) { try notes.attach(to: -1, .ipv6) }
    }

    // MARK: On real packets

    struct Datagrams: CustomTestStringConvertible {
        let testDescription: String
        let inner: InnerProtocol
        var to: UInt32 = localhost
        var payload = [UInt8](repeating: 0xEE, count: 350)
        /// What the kernel cuts them into; 0: nothing.
        var size: Int32 = 100
        let note: MergeNotes.Note
    }

    // What follows the IPv4 header is taken for the inner packet's: its protocol number stands in UDP's checksum, which is the
    // pseudo header's sum here, or in the payload.
    static let datagrams = [
        Datagrams(testDescription: "IPv4", inner: .ipv4, note: .segments(of: 100)),
        Datagrams(testDescription: "IPv6", inner: .ipv6, note: .segments(of: 100)),
        Datagrams(
            testDescription: "the longest", inner: .ipv6, payload: [UInt8](repeating: 1, count: 65000), size: 1400,
            note: .segments(of: 1400)),
        Datagrams(
            testDescription: "just long enough", inner: .ipv4, payload: [UInt8](repeating: 1, count: 20), size: 10,
            note: .segments(of: 10)),
        Datagrams(
            testDescription: "too short", inner: .ipv4, payload: [UInt8](repeating: 1, count: 19), size: 10, note: .none),
        Datagrams(testDescription: "not merged", inner: .ipv4, size: 0, note: .none),
        Datagrams(testDescription: "not merged, IPv6", inner: .ipv6, size: 0, note: .none),
        Datagrams(testDescription: "TCP in IPv4", inner: .ipv4, payload: [UInt8](repeating: 6, count: 350), note: .none),
        Datagrams(testDescription: "TCP in IPv6", inner: .ipv6, to: 0x7F00_0700, note: .none),
    ]

    /// On loopback, a datagram that is still to be cut looks to the filter like one that was merged.
    @Test(arguments: datagrams)
    func mergedPacketsAreNoted(row: Datagrams) throws {
        let receiver = try Self.socket(AF_INET, SOCK_DGRAM)
        defer { close(receiver) }
        let port = try Self.bind(receiver, to: row.to)
        let watcher = try Self.packetSocket()
        defer { close(watcher) }
        // The kernel shows a packet to the newer one first, as with guardians.
        let guardian = try Self.packetSocket()
        defer { close(guardian) }
        let notes = try MergeNotes()
        try notes.attach(to: guardian, row.inner)
        // What others sent before the filter stood.
        while Self.hasPacket(guardian) {}

        try Self.send(row.payload, to: port, of: row.to, cutInto: row.size)
        let packet = try #require(Self.packet(to: port, from: watcher))
        try #require(packet.count == 28 + row.payload.count)
        if row.testDescription.hasPrefix("TCP") { try #require(packet[row.inner == .ipv6 ? 26 : 29] == 6) }
        var other = packet
        other[5] ^= 1
        #expect(notes.find(other, row.inner) == .none)
        #expect(notes.find(packet, row.inner) == row.note)
        #expect(notes.find(packet, row.inner) == .none)
        #expect(!Self.hasPacket(guardian))
    }

    private static func hasPacket(_ socket: Int32) -> Bool {
        var byte: UInt8 = 0
        return unsafe recv(socket, &byte, 1, Int32(MSG_DONTWAIT)) >= 0
    }

    private static func socket(_ domain: Int32, _ type: __socket_type, _ number: Int32 = 0) throws -> Int32 {
        try check("socket", Glibc.socket(domain, Int32(type.rawValue | SOCK_CLOEXEC.rawValue), number))
    }

    /// Shows what arrives from its IPv4 header on.
    private static func packetSocket() throws -> Int32 { try socket(AF_PACKET, SOCK_DGRAM, Int32(UInt16(0x0800).bigEndian)) }

    private static func bind(_ socket: Int32, to address: UInt32) throws -> UInt16 {
        var name = RawSocket.socketAddress(address)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        return try unsafe withUnsafeMutablePointer(to: &name) {
            try unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                try check("bind", unsafe Glibc.bind(socket, name, length))
                try check("getsockname", unsafe getsockname(socket, name, &length))
            }
            return unsafe UInt16(bigEndian: $0.pointee.sin_port)
        }
    }

    private static func send(_ payload: [UInt8], to port: UInt16, of address: UInt32, cutInto size: Int32) throws {
        let sender = try socket(AF_INET, SOCK_DGRAM)
        defer { close(sender) }
        var size = size
        let (level, option): (Int32, Int32) = (17, 103)  // SOL_UDP, UDP_SEGMENT
        try check("UDP_SEGMENT", unsafe setsockopt(sender, level, option, &size, socklen_t(MemoryLayout<Int32>.size)))
        var name = RawSocket.socketAddress(address)
        name.sin_port = port.bigEndian
        let sent = unsafe withUnsafePointer(to: &name) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe sendto(sender, payload, payload.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(sent == payload.count)
    }

    /// The first packet of UDP to that port.
    private static func packet(to port: UInt16, from watcher: Int32) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        var wait = timeval(tv_sec: 10, tv_usec: 0)
        unsafe setsockopt(watcher, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
        while true {
            let length = unsafe recv(watcher, &buffer, buffer.count, 0)
            if length < 0 { return nil }
            if length >= 28 && buffer[9] == 17 && UInt16(buffer[22]) << 8 | UInt16(buffer[23]) == port {
                return Array(buffer.prefix(length))
            }
        }
    }
}

extension MergeNotes {
    fileprivate func find(_ packet: [UInt8], _ inner: InnerProtocol) -> Note {
        collect(at: 0)
        return unsafe find(packet.span.bytes, inner, at: 0)
    }
}
