internal import CLinux
internal import Glibc

/// Classic BPF for the underlay's raw sockets. A packet begins with its IPv4 header there.
struct SocketFilter {
    var program: [sock_filter] = []

    /// Takes nothing. A socket that has it still counts as one that the packet was delivered to, so the kernel does not
    /// answer "protocol unreachable".
    static var nothing: SocketFilter { SocketFilter(program: [Self.statement(BPF_RET | BPF_K, 0)]) }

    /// More than the longest packet: no truncation.
    static var wholePacket: UInt32 { 0x40000 }

    /// Takes the flows of worker `index` of `count`, so that of all workers' filters exactly one takes any given packet.
    ///
    /// The hash covers the inner addresses, and the ports where TCP or UDP follows the inner header directly: one without options,
    /// and no fragment's. Worker 0 takes the rest: what is behind an outer header with options, since loads from fixed places are
    /// compiled to a few instructions and others to a call; and what is too short for an inner header, which it counts. (A load
    /// behind the packet's end would end the program with a drop that nobody counts, hence the length tests.)
    static func flows(of index: Int, among count: Int, _ inner: InnerProtocol = .ipv6) -> SocketFilter {
        if count == 1 { return SocketFilter(program: [statement(BPF_RET | BPF_K, wholePacket)]) }
        var filter = SocketFilter()
        func add(_ code: Int32, _ value: UInt32 = 0) { filter.program.append(statement(code, value)) }
        /// Goes on if it holds, else to where `land` is called with the result.
        func require(_ condition: Int32, _ value: UInt32) -> Int {
            filter.program.append(jump(condition, value))
            return filter.program.count - 1
        }
        func land(_ tests: [Int]) {
            for test in tests { filter.program[test].jf = UInt8(filter.program.count - test - 1) }
        }
        func multiply() { add(BPF_ALU | BPF_MUL | BPF_K, 0x9E37_79B1) }
        /// A = A * odd constant ^ word
        func mix(wordAt offset: UInt32) {
            multiply()
            add(BPF_MISC | BPF_TAX)
            add(BPF_LD | BPF_W | BPF_ABS, offset)
            add(BPF_ALU | BPF_XOR | BPF_X)
        }

        let start: UInt32 = 20
        let (headerLength, addresses, next): (UInt32, Range<UInt32>, UInt32) =
            inner == .ipv6 ? (40, 8..<40, 6) : (20, 12..<20, 9)
        /// A cell of the scratch memory.
        let hash: UInt32 = 0

        add(BPF_LD | BPF_W | BPF_LEN)
        var isOther = [require(BPF_JGE, start + headerLength)]
        add(BPF_LD | BPF_B | BPF_ABS, 0)
        isOther.append(require(BPF_JEQ, 0x45))
        add(BPF_LD | BPF_W | BPF_ABS, start + addresses.lowerBound)
        for offset in addresses.dropFirst(4) where offset % 4 == 0 { mix(wordAt: start + offset) }
        add(BPF_ST, hash)

        add(BPF_LD | BPF_W | BPF_LEN)
        var hasNoPorts = [require(BPF_JGE, start + headerLength + 4)]
        if inner == .ipv4 {
            add(BPF_LD | BPF_B | BPF_ABS, start)
            hasNoPorts.append(require(BPF_JEQ, 0x45))
            add(BPF_LD | BPF_H | BPF_ABS, start + 6)
            add(BPF_ALU | BPF_AND | BPF_K, 0x3FFF)  // more fragments, or an offset
            hasNoPorts.append(require(BPF_JEQ, 0))
        }
        add(BPF_LD | BPF_B | BPF_ABS, start + next)
        filter.program.append(jump(BPF_JEQ, UInt32(IPPROTO_TCP), ifTrue: 1))
        hasNoPorts.append(require(BPF_JEQ, UInt32(IPPROTO_UDP)))
        add(BPF_LD | BPF_MEM, hash)
        mix(wordAt: start + headerLength)
        add(BPF_ST, hash)
        land(hasNoPorts)

        add(BPF_LD | BPF_MEM, hash)
        multiply()
        add(BPF_ALU | BPF_RSH | BPF_K, 16)  // the upper bits are the mixed ones
        add(BPF_ALU | BPF_MOD | BPF_K, UInt32(count))
        let isAnothers = require(BPF_JEQ, UInt32(index))
        add(BPF_RET | BPF_K, wholePacket)
        land([isAnothers])
        add(BPF_RET | BPF_K, 0)
        land(isOther)
        add(BPF_RET | BPF_K, index == 0 ? wholePacket : 0)
        return filter
    }

    /// Of that, what came through one interface.
    func only(through interface: Int32) -> SocketFilter {
        let load = Self.statement(BPF_LD | BPF_W | BPF_ABS, UInt32(bitPattern: Int32(SKF_AD_OFF + SKF_AD_IFINDEX)))
        let test = Self.jump(BPF_JEQ, UInt32(bitPattern: interface), ifTrue: 1)
        return SocketFilter(program: [load, test, Self.statement(BPF_RET | BPF_K, 0)] + program)
    }

    func attach(to socket: Int32) throws(SystemError) {
        var program = program
        let result = unsafe program.withUnsafeMutableBufferPointer { instructions in
            var filter = unsafe sock_fprog(len: UInt16(instructions.count), filter: instructions.baseAddress)
            return unsafe setsockopt(
                socket, SOL_SOCKET, SO_ATTACH_FILTER, &filter, socklen_t(MemoryLayout<sock_fprog>.size))
        }
        try check("setsockopt(SO_ATTACH_FILTER)", result)
    }

    private static func statement(_ code: Int32, _ value: UInt32) -> sock_filter {
        sock_filter(code: UInt16(truncatingIfNeeded: code), jt: 0, jf: 0, k: value)
    }

    private static func jump(_ condition: Int32, _ value: UInt32, ifTrue: UInt8 = 0, ifFalse: UInt8 = 0) -> sock_filter {
        sock_filter(code: UInt16(truncatingIfNeeded: BPF_JMP | condition | BPF_K), jt: ifTrue, jf: ifFalse, k: value)
    }
}
