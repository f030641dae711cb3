import CLiburing
import CLinux
import Glibc
import Testing

@testable import RingIO

/// Needs CAP_NET_RAW.
private let mayMakeThem = (try? RawSocket(.ipv6, UnderlayScope(), isListed: false)) != nil

/// On the loopback interface, which has all of 127/8.
@Suite(.enabled(if: mayMakeThem), .serialized) struct RawSocketTests {
    static let (here, there, elsewhere): (UInt32, UInt32, UInt32) = (0x7F29_0001, 0x7F29_0002, 0x7F29_0003)

    /// Local and remote addresses of the protocol 41 sockets that the kernel finds for packets.
    static func listed() -> [[UInt32]] {
        let file = unsafe fopen("/proc/thread-self/net/raw", "r")
        defer { unsafe fclose(file) }
        var found: [[UInt32]] = []
        var line = [CChar](repeating: 0, count: 512)
        while unsafe fgets(&line, 512, file) != nil {
            let words = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self).split(
                separator: " ")
            guard words.count > 2, words[1].hasSuffix(":0029") else { continue }
            found.append(words[1...2].map { UInt32($0.prefix(8), radix: 16)!.byteSwapped })
        }
        return found
    }

    static func listed(at address: UInt32) -> [UInt32] { listed().filter { $0[0] == address }.map { $0[1] } }

    static func receiver(_ scope: UnderlayScope = UnderlayScope(), isRenumbered: Bool = true) throws -> RawListener {
        try .receiver(.ipv6, scope, isRenumbered: isRenumbered, worker: 0, of: 1)
    }

    static func sender(_ excess: RawSender.Excess, from address: UInt32, _ scope: UnderlayScope = UnderlayScope()) throws
        -> RawSender
    {
        let sender = try RawSender(.ipv6, scope, excess, ttl: 64, tos: 0)
        try sender.bind(to: address)
        return sender
    }

    /// - Returns: the error code, or 0.
    static func send(_ sender: RawSender, to address: UInt32, _ payload: [UInt8] = [1, 2, 3, 4]) -> Int32 {
        var name = RawSocket.socketAddress(address)
        let sent = unsafe withUnsafePointer(to: &name) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe sendto(sender.rawDescriptor, payload, payload.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        return sent < 0 ? errno : 0
    }

    /// What has arrived: the IPv4 headers' sources and identifications.
    static func arrived(at receiver: RawListener) -> [(source: UInt32, identification: Int)] {
        var found: [(UInt32, Int)] = []
        for descriptor in receiver.rawDescriptors {
            var packet = [UInt8](repeating: 0, count: 65536)
            // MSG_DONTWAIT
            while unsafe recv(descriptor, &packet, packet.count, 0x40) > 0 {
                found.append((packet[12..<16].reduce(0) { $0 << 8 | UInt32($1) }, Int(packet[4]) << 8 | Int(packet[5])))
            }
        }
        return found
    }

    @Test func takesNothingWithoutAnAddress() throws {
        let receiver = try Self.receiver()
        let sender = try Self.sender(.isRefused, from: Self.there)
        #expect(Self.send(sender, to: RawSocket.nobody) == 0)
        #expect(Self.arrived(at: receiver).isEmpty)
        try receiver.bind(to: Self.here)
        #expect(Self.arrived(at: receiver).isEmpty)
        #expect(Self.send(sender, to: Self.here) == 0)
        #expect(Self.arrived(at: receiver).map(\.source) == [Self.there])
    }

    /// Without extended filters the classic one is exchanged when the socket is bound again; lo is 1.
    @Test func takesWhatCameThroughOneInterface() throws {
        let interface = UnderlayInterface(index: 1, isInVRF: false)
        let receiver = try Self.receiver(UnderlayScope(interface: interface))
        let sender = try Self.sender(.isRefused, from: Self.there)
        for (index, arrives) in [(1, true), (7, false), (1, true)] as [(Int32, Bool)] {
            interface.become(index)
            try receiver.bind(to: Self.here)
            #expect(Self.send(sender, to: Self.here) == 0)
            #expect(Self.arrived(at: receiver).count == (arrives ? 1 : 0), "\(index)")
        }
    }

    @Test func restsAndComesBack() throws {
        let receiver = try Self.receiver()
        let sender = try Self.sender(.isRefused, from: Self.there)
        try receiver.bind(to: Self.here)
        try receiver.rest()
        #expect(Self.send(sender, to: Self.here) == 0)
        #expect(Self.arrived(at: receiver).isEmpty)
        try receiver.bind(to: Self.here)
        #expect(Self.send(sender, to: Self.here) == 0)
        #expect(Self.arrived(at: receiver).count == 1)
    }

    /// Also back to the first address, and told again what it knows.
    @Test(arguments: [nil, there])
    func goesFromAddressToAddress(remote: UInt32?) throws {
        let receiver = try Self.receiver(UnderlayScope(remote: remote))
        let sender = try Self.sender(.isRefused, from: Self.there)
        var last: UInt32?
        for address in [Self.here, Self.elsewhere, Self.here, Self.here, Self.elsewhere, Self.here + 8] {
            try receiver.bind(to: address)
            #expect(Self.send(sender, to: address) == 0)
            if let last, last != address { #expect(Self.send(sender, to: last) == 0) }
            #expect(Self.arrived(at: receiver).count == 1)
            last = address
        }
    }

    @Test func pointToPointTheKernelShowsItTheRemotesPacketsOnly() throws {
        let receiver = try Self.receiver(UnderlayScope(remote: Self.there), isRenumbered: false)
        try receiver.bind(to: Self.here)
        #expect(Self.listed(at: Self.here) == [Self.there])
        let (remote, other) = (try Self.sender(.isRefused, from: Self.there), try Self.sender(.isRefused, from: Self.elsewhere))
        #expect(Self.send(other, to: Self.here) == 0 && Self.send(remote, to: Self.here) == 0)
        #expect(Self.arrived(at: receiver).map(\.source) == [Self.there])
    }

    /// Connecting to the broadcast address is refused, as it is where there is no route.
    @Test func whatCannotBeConnectedIsBoundOnly() throws {
        let receiver = try Self.receiver(UnderlayScope(remote: 0xFFFF_FFFF))
        let sender = try Self.sender(.isRefused, from: Self.there)
        for address in [Self.here, Self.here, Self.elsewhere] {
            try receiver.bind(to: address)
            #expect(Self.listed(at: address) == [0])
            #expect(Self.send(sender, to: address) == 0)
            #expect(Self.arrived(at: receiver).count == 1)
        }
    }

    @Test func aForeignAddressIsRefused() throws {
        let receiver = try Self.receiver()
        let sender = try Self.sender(.isRefused, from: Self.there)
        #expect(throws: SystemError("bind", code: EADDRNOTAVAIL)) { try receiver.bind(to: 0xC000_0201) }
        #expect(throws: SystemError("bind", code: EADDRNOTAVAIL)) { try sender.bind(to: 0xC000_0201) }
        // It has no address now, and a packet without one would get one of the kernel's choice.
        try receiver.bind(to: Self.here)
        #expect(Self.send(sender, to: Self.here) == 0)
        #expect(Self.arrived(at: receiver).map(\.source) == [RawSocket.nobody])
    }

    @Test(arguments: [RawSender.Excess.isRefused, .isFragmented])
    func nothingFindsASender(excess: RawSender.Excess) throws {
        let sender = try Self.sender(excess, from: Self.elsewhere)
        #expect(Self.listed(at: Self.elsewhere).isEmpty)
        try sender.bind(to: Self.there)
        #expect(Self.listed(at: Self.there).isEmpty)
    }

    @Test(arguments: [RawSender.Excess.isRefused, .isFragmented])
    func aSenderKeepsItsInterface(excess: RawSender.Excess) throws {
        let sender = try Self.sender(
            excess, from: Self.there, UnderlayScope(interface: UnderlayInterface(index: 1, isInVRF: false)))
        for address in [Self.there, Self.elsewhere, Self.there] {
            try sender.bind(to: address)
            var name = [CChar](repeating: 0, count: 16)
            var length = socklen_t(name.count)
            #expect(unsafe getsockopt(sender.rawDescriptor, SOL_SOCKET, SO_BINDTODEVICE, &name, &length) == 0)
            #expect(name.prefix(3).map(Int.init) == [108, 111, 0])
        }
    }

    /// With DF each numbers its own, and never with 0. Where packets may be fragmented, all number together: two packets to one
    /// host with one number, and the fragments of both would be put together.
    @Test func fragmentsAreNumberedTogether() throws {
        let receiver = try Self.receiver()
        try receiver.bind(to: Self.here)
        let pair = [try Self.sender(.isFragmented, from: Self.there), try Self.sender(.isFragmented, from: Self.there)]
        for turn in 0..<64 { #expect(Self.send(pair[turn % 2], to: Self.here) == 0) }
        let numbers = Self.arrived(at: receiver).map(\.identification)
        #expect(numbers.count == 64)
        for (number, next) in zip(numbers, numbers.dropFirst()) { #expect((1..<1000).contains((next - number) & 0xFFFF)) }

        let whole = try Self.sender(.isRefused, from: Self.there)
        for _ in 0..<3 { #expect(Self.send(whole, to: Self.here) == 0) }
        let own = Self.arrived(at: receiver).map(\.identification)
        #expect(own.count == 3 && zip(own, own.dropFirst()).allSatisfy { ($1 - $0) & 0xFFFF == 1 })
    }
}

@Suite(.enabled(if: mayMakeThem), .serialized) struct QueuedErrorTests {
    /// What `raw_err` leaves behind when the queue is read between its two steps: here by a socket without a queue.
    @Test func aPendingErrorWithoutAQueuedOneIsTakenToo() throws {
        let (here, there): (UInt32, UInt32) = (0x7F29_0005, 0x7F29_0006)
        let listener = try RawListener.receiver(
            .ipv6, UnderlayScope(remote: there), isRenumbered: false, worker: 0, of: 1)
        try listener.bind(to: here)
        let descriptor = listener.rawDescriptors[0]
        try Self.sendProtocolUnreachable(about: here, there)
        var polled = pollfd(fd: descriptor, events: 0, revents: 0)
        #expect(unsafe poll(&polled, 1, 2000) == 1 && Int32(polled.revents) & POLLERR != 0)
        #expect(QueuedError.next(of: descriptor) == nil)
        #expect(unsafe poll(&polled, 1, 0) == 0)
    }

    /// To the one, about a packet to the other.
    static func sendProtocolUnreachable(about source: UInt32, _ destination: UInt32) throws {
        func bytes(_ address: UInt32) -> [UInt8] { [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: address >> $0) } }
        let quote =
            [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 41, 0, 0] + bytes(source) + bytes(destination) + [UInt8](repeating: 0, count: 8)
        var message: [UInt8] = [3, 2, 0, 0, 0, 0, 0, 0] + quote
        var sum = stride(from: 0, to: message.count, by: 2).reduce(0) { $0 + Int(message[$1]) << 8 + Int(message[$1 + 1]) }
        while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
        (message[2], message[3]) = (UInt8(~sum >> 8 & 0xFF), UInt8(~sum & 0xFF))
        let raw = socket(AF_INET, Int32(SOCK_RAW.rawValue), Int32(IPPROTO_ICMP))
        defer { close(raw) }
        var name = RawSocket.socketAddress(source)
        let sent = unsafe withUnsafePointer(to: &name) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe sendto(raw, message, message.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        #expect(sent == message.count)
    }
}
