internal import CLinux
internal import Glibc

/// Classic BPF for the underlay's raw sockets. A packet begins with its IPv4 header there.
struct SocketFilter {
    var program: [sock_filter] = []

    /// Takes nothing. A socket that has it still counts as one that the packet was delivered to, so the kernel does not
    /// answer "protocol unreachable".
    static var nothing: SocketFilter { SocketFilter(program: [Self.statement(BPF_RET | BPF_K, 0)]) }

    /// More than the longest packet: no truncation.
    private static var wholePacket: UInt32 { 0x40000 }

    /// Takes the flows of worker `index` of `count`, so that of all workers' filters exactly one takes any given packet.
    ///
    /// The hash covers the inner addresses, and the ports where TCP or UDP follows the IPv6 header directly. A load behind
    /// the packet's end would end the program with a drop that nobody counts, hence the length tests: what is too short for
    /// an IPv6 header goes to worker 0, which counts it.
    static func flows(of index: Int, among count: Int) -> SocketFilter {
        if count == 1 { return SocketFilter(program: [statement(BPF_RET | BPF_K, wholePacket)]) }
        var filter = SocketFilter()
        func add(_ code: Int32, _ value: UInt32 = 0) { filter.program.append(statement(code, value)) }

        /// Where in the scratch memory the hash is kept while X holds the outer header's length.
        let hash: UInt32 = 0
        func mix(wordAt offset: UInt32) {
            // A = word at X + offset; hash = (hash ^ A) * odd constant
            add(BPF_LD | BPF_W | BPF_IND, offset)
            add(BPF_ST, 1)
            add(BPF_STX, 2)
            add(BPF_LD | BPF_MEM, hash)
            add(BPF_LDX | BPF_MEM, 1)
            add(BPF_ALU | BPF_XOR | BPF_X)
            add(BPF_ALU | BPF_MUL | BPF_K, 0x9E37_79B1)
            add(BPF_ST, hash)
            add(BPF_LDX | BPF_MEM, 2)
        }
        let mixLength: UInt8 = 9

        add(BPF_LD | BPF_IMM, 0)
        add(BPF_ST, hash)
        add(BPF_LDX | BPF_B | BPF_MSH, 0)  // X = outer header length
        add(BPF_LD | BPF_W | BPF_LEN)
        add(BPF_ALU | BPF_SUB | BPF_X)  // A = bytes behind it
        filter.program.append(jump(BPF_JGE, 40, ifFalse: 8 * mixLength + 6 + mixLength))  // to the end: hash 0
        for offset: UInt32 in stride(from: 8, to: 40, by: 4) { mix(wordAt: offset) }
        add(BPF_LD | BPF_W | BPF_LEN)
        add(BPF_ALU | BPF_SUB | BPF_X)
        filter.program.append(jump(BPF_JGE, 44, ifFalse: 3 + mixLength))
        add(BPF_LD | BPF_B | BPF_IND, 6)  // next header
        filter.program.append(jump(BPF_JEQ, UInt32(IPPROTO_TCP), ifTrue: 1))
        filter.program.append(jump(BPF_JEQ, UInt32(IPPROTO_UDP), ifFalse: mixLength))
        mix(wordAt: 40)

        add(BPF_LD | BPF_MEM, hash)
        add(BPF_ALU | BPF_RSH | BPF_K, 16)  // the upper bits are the mixed ones
        add(BPF_ALU | BPF_MOD | BPF_K, UInt32(count))
        filter.program.append(jump(BPF_JEQ, UInt32(index), ifFalse: 1))
        add(BPF_RET | BPF_K, wholePacket)
        add(BPF_RET | BPF_K, 0)
        return filter
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
