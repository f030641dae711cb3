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
    /// The hash covers the inner addresses, and the ports where TCP or UDP follows the inner header directly: one without options,
    /// and no fragment's. A load behind the packet's end would end the program with a drop that nobody counts, hence the length
    /// tests: what is too short for an inner header goes to worker 0, which counts it.
    static func flows(of index: Int, among count: Int, _ inner: InnerProtocol = .ipv6) -> SocketFilter {
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

        let addresses = inner == .ipv6 ? stride(from: 8, to: 40, by: 4) : stride(from: 12 as UInt32, to: 20, by: 4)
        let headerLength: UInt32 = inner == .ipv6 ? 40 : 20
        // Steps behind the length test that guards the ports.
        let optionTests: UInt8 = inner == .ipv6 ? 0 : 4
        let portTests: UInt8 = 3
        let addressMixes = UInt8(inner == .ipv6 ? 8 : 2) * mixLength

        add(BPF_LD | BPF_IMM, 0)
        add(BPF_ST, hash)
        add(BPF_LDX | BPF_B | BPF_MSH, 0)  // X = outer header length
        add(BPF_LD | BPF_W | BPF_LEN)
        add(BPF_ALU | BPF_SUB | BPF_X)  // A = bytes behind it
        // To the end: hash 0.
        filter.program.append(
            jump(BPF_JGE, headerLength, ifFalse: addressMixes + 3 + optionTests + portTests + mixLength))
        for offset in addresses { mix(wordAt: offset) }
        add(BPF_LD | BPF_W | BPF_LEN)
        add(BPF_ALU | BPF_SUB | BPF_X)
        filter.program.append(jump(BPF_JGE, headerLength + 4, ifFalse: optionTests + portTests + mixLength))
        if inner == .ipv4 {
            add(BPF_LD | BPF_B | BPF_IND, 0)
            filter.program.append(jump(BPF_JEQ, 0x45, ifFalse: 2 + portTests + mixLength))
            add(BPF_LD | BPF_H | BPF_IND, 6)  // more fragments, or an offset
            filter.program.append(jump(BPF_JSET, 0x3FFF, ifTrue: portTests + mixLength))
        }
        add(BPF_LD | BPF_B | BPF_IND, inner == .ipv6 ? 6 : 9)  // next header, or protocol
        filter.program.append(jump(BPF_JEQ, UInt32(IPPROTO_TCP), ifTrue: 1))
        filter.program.append(jump(BPF_JEQ, UInt32(IPPROTO_UDP), ifFalse: mixLength))
        mix(wordAt: headerLength)

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
