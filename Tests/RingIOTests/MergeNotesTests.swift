import CLiburing
import CLinux
import Glibc
import Testing

@testable import RingIO

@Suite struct MergeNoteTableTests {
    enum Step {
        case note(Int, of: UInt16)
        /// Notes were lost.
        case loss
        /// The receivers were empty.
        case empty
        case ask(Int, MergeNotes.Note)
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

    static let rows = [
        Row("nobody noted it", .ask(1, .none)),
        Row("a note is good once", .note(1, of: 1200), .ask(1, .segments(of: 1200)), .ask(1, .none)),
        Row(
            "two packets", .note(1, of: 1200), .note(2, of: 50), .ask(2, .segments(of: 50)), .ask(3, .none),
            .ask(1, .segments(of: 1200))),
        Row(
            "two alike", .note(1, of: 1200), .note(1, of: 1200), .ask(1, .segments(of: 1200)), .ask(1, .segments(of: 1200)),
            .ask(1, .none)),
        Row(
            "two alike, one after the other", .note(1, of: 1200), .ask(1, .segments(of: 1200)), .note(1, of: 50),
            .ask(1, .segments(of: 50)), .ask(1, .none)),
        Row(
            "two alike that contradict each other", .note(1, of: 1200), .note(1, of: 50), .note(2, of: 50), .ask(1, .unclear),
            .ask(1, .unclear), .ask(1, .none), .ask(2, .segments(of: 50))),
        Row(
            "three, of which one contradicts", .note(1, of: 1200), .note(1, of: 50), .note(1, of: 1200), .ask(1, .unclear),
            .ask(1, .unclear), .ask(1, .unclear), .ask(1, .none)),
        Row(
            "then it begins anew", .note(1, of: 1200), .note(1, of: 50), .ask(1, .unclear), .ask(1, .unclear), .note(1, of: 50),
            .ask(1, .segments(of: 50))),
        Row("the longest", .note(1, of: 65535), .ask(1, .segments(of: 65535))),
        // Its packet may come a moment after the receivers were empty.
        Row("kept once", .note(1, of: 1200), .empty, .note(2, of: 50), .ask(1, .segments(of: 1200)), .ask(1, .none)),
        Row(
            "forgotten the next time", .note(1, of: 1200), .empty, .note(2, of: 50), .empty, .ask(1, .none),
            .ask(2, .segments(of: 50)), .ask(1, .none)),
        Row("all of them", .note(1, of: 1200), .note(2, of: 50), .empty, .empty, .ask(1, .none), .ask(2, .none)),
        Row("two alike, of two times", .note(1, of: 50), .empty, .note(1, of: 50), .empty, .ask(1, .segments(of: 50))),
        Row(
            "two alike, of two times, that contradict each other", .note(1, of: 1200), .empty, .note(1, of: 50),
            .ask(1, .unclear), .ask(1, .unclear), .ask(1, .none)),
        Row(
            "the contradiction is forgotten, too", .note(1, of: 1200), .note(1, of: 50), .empty, .empty, .note(1, of: 50),
            .ask(1, .segments(of: 50))),
        Row(
            "after a loss", .note(1, of: 1200), .loss, .ask(2, .unclear), .ask(1, .segments(of: 1200)), .ask(1, .unclear), .empty,
            .ask(1, .unclear), .empty, .ask(1, .none)),
        Row("after two", .loss, .empty, .loss, .empty, .ask(1, .unclear), .empty, .ask(1, .none)),
    ]

    @Test(arguments: rows)
    func notesAreFoundWhileTheyAreGood(row: Row) {
        var table = MergeNoteTable(capacity: 10)
        for (index, step) in row.steps.enumerated() {
            switch step {
            case .note(let number, let size): table.add(Self.head(number), segmentSize: size)
            case .loss: table.isIncomplete()
            case .empty: table.forgetOld()
            case .ask(let number, let expected):
                let isEmpty = table.isEmpty
                let answer = table.take(Self.head(number))
                #expect(answer == expected, "step \(index)")
                if isEmpty { #expect(answer == .none, "step \(index)") }
            }
        }
    }

    /// Of a head, all counts.
    @Test func noBitOfTheHeadIsOverlooked() {
        let head = Self.head(0)
        for bit in 0..<512 as Range<UInt64> {
            var table = MergeNoteTable(capacity: 10)
            table.add(head, segmentSize: 1200)
            var other = head
            other[Int(bit / 64)] ^= 1 << (bit % 64)
            let (theOther, itself) = (table.take(other), table.take(head))
            #expect(theOther == .none && itself == .segments(of: 1200), "bit \(bit)")
        }
    }

    /// What finds no room is lost, and whoever asks about it hears that something is; the others are as good as ever.
    @Test(arguments: [1, 10, 100, 5000])
    func aFullTableTakesNoMore(capacity: Int) {
        func head(_ number: Int) -> MergeNoteTable.Head {
            var head = MergeNoteTable.Head(repeating: 7)
            head[3] = UInt64(number)
            return head
        }
        for extra in [0, 1, capacity] {
            var table = MergeNoteTable(capacity: capacity)
            for number in 0..<capacity + extra { table.add(head(number), segmentSize: UInt16(number + 1)) }
            for number in (0..<capacity + extra).reversed() {
                let answer = table.take(head(number))
                #expect(answer == (number < capacity ? .segments(of: number + 1) : .unclear), "\(number) of \(capacity + extra)")
            }
            // All room is there again.
            for number in 0..<capacity { table.add(head(number), segmentSize: 9) }
            for number in 0..<capacity {
                let answer = table.take(head(number))
                #expect(answer == .segments(of: 9))
            }
            table.forgetOld()
            table.forgetOld()
            let isEmpty = table.isEmpty
            #expect(isEmpty)
        }
    }

    /// Beside a dictionary that does the same, for as long as the room lasts.
    @Test(arguments: [51, 52, 53] as [UInt64])
    func itKeepsWhatADictionaryWould(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var table = MergeNoteTable(capacity: 300)
        // Size 0: they contradict each other.
        var model: [Int: (count: Int, size: UInt16, isOld: Bool)] = [:]
        for step in 0..<20_000 {
            let number = Int.random(in: 0..<300, using: &random)
            var head = MergeNoteTable.Head()
            (head[0], head[7]) = (UInt64(number % 7), UInt64(number))
            switch Int.random(in: 0..<200, using: &random) {
            case 0..<100:
                let size = UInt16.random(in: 1...2, using: &random)
                table.add(head, segmentSize: size)
                let before = model[number]
                model[number] = ((before?.count ?? 0) + 1, before == nil || before!.size == size ? size : 0, false)
            case 100..<199:
                let answer = table.take(head)
                let before = model[number]
                #expect(
                    answer == (before == nil ? .none : before!.size == 0 ? .unclear : .segments(of: Int(before!.size))),
                    "step \(step)")
                model[number]?.count -= 1
                if before?.count == 1 { model[number] = nil }
            default:
                table.forgetOld()
                model = model.filter { !$0.value.isOld }.mapValues { ($0.count, $0.size, true) }
            }
        }
    }

    @Test func thoseAlikeTakeNoRoom() {
        var table = MergeNoteTable(capacity: 3)
        for _ in 0..<100 {
            for number in 0..<2 { table.add(Self.head(number), segmentSize: 1200) }
        }
        for _ in 0..<100 {
            let first = table.take(Self.head(0))
            let second = table.take(Self.head(1))
            #expect([first, second] == [.segments(of: 1200), .segments(of: 1200)])
        }
        let answer = table.take(Self.head(0))
        #expect(answer == .none)
    }
}

/// Needs CAP_BPF.
private let canTakeNotes = (try? MergeNotes()) != nil

/// The kernel runs the filters here.
@Suite(.enabled(if: canTakeNotes)) struct MergeNotesTests {
    static let localhost: UInt32 = 0x7F00_0001

    @Test(arguments: [InnerProtocol.ipv6, .ipv4])
    func aReceiverTakesNotes(inner: InnerProtocol) throws {
        let notes = try MergeNotes(carrying: [.ipv6, .ipv4])
        let receiver = try RawListener.receiver(
            inner, UnderlayScope(), isRenumbered: false, worker: 0, of: 1, notes: notes)
        try receiver.bind(to: Self.localhost)
        #expect(!notes.collect())
        for length in [0, 47, 48, 63, 64, 1500] {
            let note = notes.find([UInt8](repeating: 0x45, count: length), inner)
            #expect(note == .none, "\(length) bytes")
        }
    }

    /// With a gate, what came through another interface is not taken, and the interface can be another one at any time.
    @Test func aGateKeepsOthersOut() throws {
        let gate = try InterfaceGate()
        let notes = try MergeNotes(carrying: [.ipv6], gate: gate)
        let interface = UnderlayInterface(index: 1, isInVRF: false, gate: gate)
        let receiver = try RawListener.receiver(
            .ipv6, UnderlayScope(interface: interface), isRenumbered: false, worker: 0, of: 1, notes: notes)
        let (here, there) = (Self.localhost + 0x4D03, Self.localhost + 0x4D04)
        try receiver.bind(to: here)
        let sender = try RawSender(.ipv6, UnderlayScope(), .isRefused, ttl: 64, tos: 0)
        try sender.bind(to: there)
        for (index, arrives) in [(1, true), (7, false), (1, true), (0, true)] as [(Int32, Bool)] {
            interface.become(index)
            #expect(RawSocketTests.send(sender, to: here) == 0)
            #expect(RawSocketTests.arrived(at: receiver).count == (arrives ? 1 : 0), "\(index)")
        }
    }

    @Test func whatIsNoSocketTakesNone() throws {
        let notes = try MergeNotes()
        #expect(throws: SystemError("setsockopt(SO_ATTACH_BPF)", code: EBADF)) { try notes.attach(to: -1, .ipv6) }
    }

    /// What is taken is the same as by the filter in whose place it stands.
    @Test(arguments: [1, 2, 3, 4, 7, 64], [InnerProtocol.ipv6, .ipv4])
    func theFlowsAreTheWorkers(workers: Int, inner: InnerProtocol) throws {
        var random = SeededGenerator(seed: 43)
        let workerIndexes = workers == 64 ? [0, 1, 31, 63] : Array(0..<workers)
        for index in workerIndexes {
            let notes = try MergeNotes(of: index, among: workers, carrying: [inner])
            let classic = try SocketFilterTests.Pair(.flows(of: index, among: workers, inner))
            let extended = try SocketFilterTests.Pair(.nothing)
            defer {
                classic.close()
                extended.close()
            }
            try notes.attach(to: extended.receiver, inner)
            var taken = 0
            for length in Array(0...60) + [1280, 1480, 30000] {
                for headerLength in [20, 20, 20, 24, 60] {
                    for (next, options, fragment) in [(6, 0, 0), (17, 0, 0x4000), (58, 0, 0), (0, 4, 0), (17, 0, 0x2000)] {
                        let packet =
                            inner == .ipv6
                            ? SocketFilterTests.packet(
                                headerLength: headerLength, nextHeader: UInt8(next), innerLength: length, &random)
                            : SocketFilterTests.packet4(
                                headerLength: headerLength, protocolNumber: UInt8(next), options: options,
                                fragment: UInt16(fragment), innerLength: length, &random)
                        let expected = classic.takes(packet)
                        #expect(extended.takes(packet) == expected, "\(index): \(length), \(headerLength), \(next)")
                        taken += expected == nil ? 0 : 1
                    }
                }
            }
            #expect(taken > 0)
            #expect(!notes.collect())
        }
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
        Datagrams(
            testDescription: "TCP in IPv4", inner: .ipv4, payload: [UInt8](repeating: 6, count: 350), note: .segments(of: 100)),
        Datagrams(testDescription: "TCP in IPv6", inner: .ipv6, to: 0x7F00_0700, note: .segments(of: 100)),
    ]

    /// On loopback, a datagram that is still to be cut looks to the filter like one that was merged.
    @Test(arguments: datagrams)
    func mergedPacketsAreNoted(row: Datagrams) throws {
        let receiver = try Self.socket(AF_INET, SOCK_DGRAM)
        defer { close(receiver) }
        let port = try Self.bind(receiver, to: row.to)
        let watcher = try Self.packetSocket()
        defer { close(watcher) }
        let notes = try MergeNotes(carrying: [row.inner])
        try notes.attach(to: watcher, row.inner)

        try Self.send(row.payload, to: port, of: row.to, cutInto: row.size)
        let packet = try #require(Self.packet(to: port, from: watcher))
        try #require(packet.count == 28 + row.payload.count)
        if row.testDescription.hasPrefix("TCP") { try #require(packet[row.inner == .ipv6 ? 26 : 29] == 6) }
        for byte in [0, 5, 9, 12, 46] {
            var other = packet
            other[byte] ^= 1
            #expect(notes.find(other, row.inner) == .none, "\(byte)")
        }
        #expect(notes.find(packet, row.inner) == row.note)
        #expect(notes.find(packet, row.inner) == .none)
    }

    /// More than there is room for: those that were lost are not taken for packets that were not merged.
    @Test func whatFindsNoRoomIsMissed() throws {
        let (address, receiver) = (Self.localhost + 0x4D01, try Self.socket(AF_INET, SOCK_DGRAM))
        defer { close(receiver) }
        let port = try Self.bind(receiver, to: address)
        // Shows the packets of that address only.
        let watcher = try Self.socket(AF_INET, SOCK_RAW, Int32(IPPROTO_UDP))
        defer { close(watcher) }
        _ = try Self.bind(watcher, to: address)
        var size: Int32 = 64 << 20
        try check(
            "SO_RCVBUFFORCE", unsafe setsockopt(watcher, SOL_SOCKET, SO_RCVBUFFORCE, &size, socklen_t(MemoryLayout<Int32>.size)))
        let notes = try MergeNotes(carrying: [.ipv4])
        notes.watch([watcher])
        try notes.attach(to: watcher, .ipv4)
        let sender = try Self.socket(AF_INET, SOCK_DGRAM)
        defer { close(sender) }
        let count = NoteRing.capacity + 500
        for number in 0..<count {
            let payload = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 21)
            try Self.send(payload, to: port, of: address, cutInto: 20, by: sender)
        }
        var (noted, unclear) = (0, 0)
        for number in 0..<count {
            guard let packet = Self.packet(to: port, from: watcher) else { break }
            switch notes.find(packet, .ipv4) {
            case .none: Issue.record("\(number) was merged")
            case .segments(let size):
                #expect(size == 20)
                noted += 1
            case .unclear: unclear += 1
            }
        }
        #expect(noted + unclear == count && unclear >= 500 && noted > NoteRing.capacity / 2)
        // Doubts are over once the receiver was empty twice.
        #expect(notes.collect())
        notes.settle(at: 10_000_000_000)
        notes.settle(at: 10_500_000_000)
        #expect(notes.collect(), "too soon")
        notes.settle(at: 11_000_000_000)
        #expect(!notes.collect())
    }

    /// Notes wait as long as their packets, and those of packets that nobody asked about no longer.
    @Test func notesAreForgottenWhenTheReceiverWasEmpty() throws {
        let (address, receiver) = (Self.localhost + 0x4D02, try Self.socket(AF_INET, SOCK_DGRAM))
        defer { close(receiver) }
        let port = try Self.bind(receiver, to: address)
        // Shows the packets of that address only.
        let watcher = try Self.socket(AF_INET, SOCK_RAW, Int32(IPPROTO_UDP))
        defer { close(watcher) }
        _ = try Self.bind(watcher, to: address)
        let notes = try MergeNotes(carrying: [.ipv4])
        notes.watch([watcher])
        try notes.attach(to: watcher, .ipv4)
        for payload in [[UInt8](repeating: 1, count: 30), [UInt8](repeating: 2, count: 30)] {
            try Self.send(payload, to: port, of: address, cutInto: 20)
        }
        let first = try #require(Self.packet(to: port, from: watcher))
        #expect(notes.collect())
        for second in 1...5 as ClosedRange<UInt64> { notes.settle(at: second * 1_000_000_000) }
        #expect(notes.find(first, .ipv4) == .segments(of: 20), "the other one is still in the socket")
        let second = try #require(Self.packet(to: port, from: watcher))
        while Self.hasPacket(watcher) {}
        #expect(notes.collect())
        notes.settle(at: 6_000_000_000)
        #expect(notes.collect(), "it may be for one that is still to come")
        notes.settle(at: 7_000_000_000)
        #expect(!notes.collect())
        #expect(notes.find(second, .ipv4) == .none)
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
        try send(payload, to: port, of: address, cutInto: size, by: sender)
    }

    private static func send(
        _ payload: [UInt8], to port: UInt16, of address: UInt32, cutInto size: Int32, by sender: Int32
    ) throws {
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
        _ = collect()
        return unsafe take(packet.span.bytes, inner)
    }
}
