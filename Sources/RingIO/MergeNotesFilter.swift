internal import CLinux
internal import Glibc

/// Extended BPF for a receiver's socket: takes what a filter of classic BPF takes, and notes the segment size of merged packets. A
/// packet begins with its IPv4 header there, which has no options in a merged one (net/ipv4/af_inet.c `inet_gro_receive`).
struct MergeNotesFilter {
    /// As struct bpf_insn: the opcode in the lowest byte, then destination and source register, offset, and immediate.
    private(set) var program: [UInt64] = []

    private static var noteLength: Int { MemoryLayout<NoteRing.Note>.size }
    /// Where in a note the segment size stands: in the place of the IPv4 header's checksum, which the rest determines.
    private static var segmentSizeOffset: Int { 10 }

    /// Bytes of the packet in a note: up to and with the ports. A shorter head is filled up with zeros.
    static func headLength(_ inner: InnerProtocol) -> Int { inner == .ipv6 ? 20 + 40 + 4 : 20 + 20 + 8 }

    /// What a note says of the packet's beginning.
    @inline(__always)
    static func head(of note: NoteRing.Note) -> MergeNoteTable.Head {
        var head = note
        head[1] &= ~mask
        return head
    }

    /// The beginning of a packet of at least `headLength` bytes.
    @inline(__always)
    static func head(of packet: RawSpan, _ inner: InnerProtocol) -> MergeNoteTable.Head {
        var head = MergeNoteTable.Head()
        for index in 0..<headLength(inner) / 8 {
            head[index] = unsafe packet.unsafeLoadUnaligned(fromByteOffset: index * 8, as: UInt64.self)
        }
        head[1] &= ~mask
        return head
    }

    @inline(__always)
    static func segmentSize(of note: NoteRing.Note) -> UInt16 {
        unsafe withUnsafeBytes(of: note) { unsafe $0.loadUnaligned(fromByteOffset: segmentSizeOffset, as: UInt16.self) }
    }

    /// The bits of a note's second word that are the segment size.
    private static var mask: UInt64 { UInt64(0x0000_FFFF_0000_0000).bigEndian }

    private enum Register: UInt64 {
        case result = 0
        case first, second, third, fourth
        /// Kept by calls: the packet, where loads expect it, and classic BPF's X and its cell of scratch memory.
        case packet = 6
        case index
        case cell
        case frame = 10

        /// Classic BPF's A, where loads leave what they have loaded.
        static var accumulator: Register { .result }
    }

    /// - Parameters:
    ///   - filter: takes whole packets or nothing.
    ///   - ring: the descriptor of a `NoteRing`.
    ///   - gate: what does not pass it is not taken.
    init(_ filter: SocketFilter, _ inner: InnerProtocol, ring: Int32, gate: InterfaceGate? = nil) {
        move(.first, to: .packet)
        if let gate { pass(gate) }
        let taken = translate(filter)
        for place in taken { land(place) }
        note(inner, ring)
        set(.result, Int32(SocketFilter.wholePacket))
        add(BPF_JMP | BPF_EXIT)
    }

    /// - Throws: EPERM without CAP_BPF, or CAP_SYS_ADMIN.
    func load() throws(SystemError) -> Descriptor {
        let loaded = unsafe program.withUnsafeBufferPointer { unsafe tund_bpf_socket_filter($0.baseAddress, UInt32($0.count)) }
        return Descriptor(try check("bpf(BPF_PROG_LOAD)", loaded))
    }

    // MARK: Interface

    private mutating func pass(_ gate: InterfaceGate) {
        // The address of the map's value, by an instruction of two words; the second one has the place in the value.
        add(BPF_LD | BPF_IMM | BPF_DW, .first, rawSource: UInt64(BPF_PSEUDO_MAP_VALUE), value: gate.map.rawValue)
        program.append(0)
        add(BPF_LDX | BPF_MEM | BPF_W, .first, .first)
        let isOpen = jump(BPF_JMP | BPF_JEQ | BPF_K, .first, 0)
        add(BPF_LDX | BPF_MEM | BPF_W, .second, .packet, offset: Int16(tund_skb_interface))
        add(BPF_ALU64 | BPF_SUB | BPF_X, .first, .second)
        let isRight = jump(BPF_JMP | BPF_JEQ | BPF_K, .first, 0)
        set(.result, 0)
        add(BPF_JMP | BPF_EXIT)
        for place in [isOpen, isRight] { land(place) }
    }

    // MARK: Taking notes

    private mutating func note(_ inner: InnerProtocol, _ ring: Int32) {
        let note = -Int16(Self.noteLength)
        let length = Self.headLength(inner)
        add(BPF_LDX | BPF_MEM | BPF_W, .index, .packet, offset: Int16(tund_skb_gso_size))
        let notMerged = jump(BPF_JMP | BPF_JEQ | BPF_K, .index, 0)
        for offset in stride(from: length, to: Self.noteLength, by: 8) {
            add(BPF_ST | BPF_MEM | BPF_DW, .frame, offset: note + Int16(offset))
        }
        move(.packet, to: .first)
        set(.second, 0)
        move(.frame, to: .third)
        add(BPF_ALU64 | BPF_ADD | BPF_K, .third, value: Int32(note))
        set(.fourth, Int32(length))
        call(BPF_FUNC_skb_load_bytes)
        let tooShort = jump(BPF_JMP | BPF_JNE | BPF_K, .result, 0)
        add(BPF_STX | BPF_MEM | BPF_H, .frame, .index, offset: note + Int16(Self.segmentSizeOffset))
        // A descriptor in an instruction of two words.
        add(BPF_LD | BPF_IMM | BPF_DW, .first, rawSource: UInt64(BPF_PSEUDO_MAP_FD), value: ring)
        program.append(0)
        move(.frame, to: .second)
        add(BPF_ALU64 | BPF_ADD | BPF_K, .second, value: Int32(note))
        set(.third, Int32(Self.noteLength))
        set(.fourth, tund_bpf_no_wake_up)
        call(BPF_FUNC_ringbuf_output)
        for place in [notMerged, tooShort] { land(place) }
    }

    // MARK: Classic BPF

    /// Writes a program of classic BPF as extended BPF, as the kernel does with each (net/core/filter.c `bpf_convert_filter`): only
    /// the instructions that `SocketFilter` uses.
    /// - Returns: the jumps of the places where it takes the packet.
    private mutating func translate(_ filter: SocketFilter) -> [Int] {
        var taken: [Int] = []
        /// By instruction of the classic program, the jumps that lead there.
        var jumps: [Int: [Int]] = [:]
        for (index, instruction) in filter.program.enumerated() {
            for place in jumps[index] ?? [] { land(place) }
            let code = Int32(instruction.code)
            let value = Int32(bitPattern: instruction.k)
            let (ifTrue, ifFalse) = (index + 1 + Int(instruction.jt), index + 1 + Int(instruction.jf))
            switch (code & 7, code) {
            case (BPF_LD, BPF_LD | BPF_W | BPF_LEN):
                add(BPF_LDX | BPF_MEM | BPF_W, .accumulator, .packet, offset: Int16(tund_skb_length))
            case (BPF_LD, BPF_LD | BPF_MEM):
                add(BPF_ALU | BPF_MOV | BPF_X, .accumulator, .cell)
            case (BPF_ST, _):
                add(BPF_ALU | BPF_MOV | BPF_X, .cell, .accumulator)
            case (BPF_MISC, BPF_MISC | BPF_TAX):
                add(BPF_ALU | BPF_MOV | BPF_X, .index, .accumulator)
            case (BPF_LD, _):
                add(code, value: value)
            case (BPF_ALU, _) where code & BPF_X != 0:
                add(code, .accumulator, .index)
            case (BPF_ALU, _):
                add(code, .accumulator, value: value)
            case (BPF_JMP, _):
                // One way of an extended jump goes on with the next instruction.
                let condition = code - BPF_JMP + BPF_JMP32
                if instruction.jt != 0 { jumps[ifTrue, default: []].append(jump(condition, .accumulator, value)) }
                if instruction.jf != 0 {
                    let negated = condition & 0xF0 == BPF_JEQ ? BPF_JNE : BPF_JLT
                    jumps[ifFalse, default: []].append(
                        instruction.jt != 0
                            ? jump(BPF_JMP | BPF_JA, .result, 0) : jump(BPF_JMP32 | negated | BPF_K, .accumulator, value))
                }
            case (BPF_RET, _) where value != 0:
                taken.append(jump(BPF_JMP | BPF_JA, .result, 0))
            case (BPF_RET, _):
                set(.result, 0)
                add(BPF_JMP | BPF_EXIT)
            default:
                preconditionFailure("an instruction \(code) that no socket filter here has")
            }
        }
        return taken
    }

    // MARK: Instructions

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
    private mutating func jump(_ code: Int32, _ register: Register, _ value: Int32) -> Int {
        add(code, register, value: value)
        return program.count - 1
    }

    private mutating func land(_ jump: Int) { program[jump] |= UInt64(program.count - jump - 1) << 16 }
}
