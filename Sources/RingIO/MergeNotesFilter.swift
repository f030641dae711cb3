internal import CLinux
internal import Glibc

/// Extended BPF for a guardian's socket: takes no packet, but notes the segment size of merged ones. A packet begins with its IPv4
/// header there, which has no options in a merged one (net/ipv4/af_inet.c `inet_gro_receive`).
struct MergeNotesFilter {
    /// As struct bpf_insn: the opcode in the lowest byte, then destination and source register, offset, and immediate.
    private(set) var program: [UInt64] = []

    /// A note is the segment size as a number of 64 bits, and the head.
    static var noteLength: Int { 8 + mostHead }
    private static var mostHead: Int { 64 }

    /// Bytes of the packet in a note: up to and with the ports. A shorter head is filled up with zeros.
    static func headLength(_ inner: InnerProtocol) -> Int { inner == .ipv6 ? 20 + 40 + 4 : 20 + 20 + 8 }

    private enum Register: UInt64 {
        case result = 0
        case first, second, third, fourth
        /// Kept by calls.
        case packet = 6
        case segmentSize
        case frame = 10
    }

    init(_ inner: InnerProtocol, queue: Int32) {
        let note = -Int16(Self.noteLength)
        let head = note + 8
        let protocolOffset = 20 + (inner == .ipv6 ? 6 : 9)

        move(.first, to: .packet)
        add(BPF_LDX | BPF_MEM | BPF_W, .segmentSize, .packet, offset: Int16(tund_skb_gso_size))
        let notMerged = jump(ifEqual: 0, .segmentSize)
        // Of a head of IPv4 the rest is zero.
        for offset in stride(from: head + 48, to: 0, by: 8) { add(BPF_ST | BPF_MEM | BPF_DW, .frame, offset: offset) }
        move(.packet, to: .first)
        set(.second, 0)
        move(.frame, to: .third)
        add(BPF_ALU64 | BPF_ADD | BPF_K, .third, value: Int32(head))
        set(.fourth, Int32(Self.headLength(inner)))
        call(BPF_FUNC_skb_load_bytes)
        let tooShort = jump(ifNotEqual: 0, .result)
        add(BPF_LDX | BPF_MEM | BPF_B, .first, .frame, offset: head + Int16(protocolOffset))
        // For TCP any segment size will do.
        let isTCP = jump(ifEqual: Int32(IPPROTO_TCP), .first)
        add(BPF_STX | BPF_MEM | BPF_DW, .frame, .segmentSize, offset: note)
        // A descriptor in an instruction of two words.
        add(BPF_LD | BPF_IMM | BPF_DW, .first, rawSource: UInt64(BPF_PSEUDO_MAP_FD), value: queue)
        program.append(0)
        move(.frame, to: .second)
        add(BPF_ALU64 | BPF_ADD | BPF_K, .second, value: Int32(note))
        set(.third, Int32(BPF_EXIST))  // a full queue loses its oldest
        call(BPF_FUNC_map_push_elem)
        for place in [notMerged, tooShort, isTCP] { land(place) }
        set(.result, 0)
        add(BPF_JMP | BPF_EXIT)
    }

    /// - Throws: EPERM without CAP_BPF, or CAP_SYS_ADMIN.
    func load() throws(SystemError) -> Descriptor {
        let loaded = unsafe program.withUnsafeBufferPointer { unsafe tund_bpf_socket_filter($0.baseAddress, UInt32($0.count)) }
        return Descriptor(try check("bpf(BPF_PROG_LOAD)", loaded))
    }

    private mutating func add(
        _ code: Int32, _ destination: Register = .result, _ source: Register = .result, rawSource: UInt64? = nil,
        offset: Int16 = 0, value: Int32 = 0
    ) {
        program.append(
            UInt64(code) | destination.rawValue << 8 | (rawSource ?? source.rawValue) << 12
                | UInt64(UInt16(bitPattern: offset)) << 16 | UInt64(UInt32(bitPattern: value)) << 32)
    }

    private mutating func move(_ source: Register, to destination: Register) {
        add(BPF_ALU64 | BPF_MOV | BPF_X, destination, source)
    }

    private mutating func set(_ destination: Register, _ value: Int32) {
        add(BPF_ALU64 | BPF_MOV | BPF_K, destination, value: value)
    }

    private mutating func call(_ helper: bpf_func_id) { add(BPF_JMP | BPF_CALL, value: Int32(helper.rawValue)) }

    /// A jump forward, to where `land` is called with the result.
    private mutating func jump(ifEqual value: Int32, _ register: Register) -> Int {
        add(BPF_JMP | BPF_JEQ | BPF_K, register, value: value)
        return program.count - 1
    }

    private mutating func jump(ifNotEqual value: Int32, _ register: Register) -> Int {
        add(BPF_JMP | BPF_JNE | BPF_K, register, value: value)
        return program.count - 1
    }

    private mutating func land(_ jump: Int) { program[jump] |= UInt64(program.count - jump - 1) << 16 }
}
