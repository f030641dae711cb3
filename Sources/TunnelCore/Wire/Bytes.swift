// The one file that reads and writes packet memory without a bounds check.
//
// A header's view or emit checks its length once; each accessor below is then a single load or store.
// SAFETY, for all of them: the caller has checked that `offset` + the width is at most `byteCount`.

extension RawSpan {
    @inlinable @inline(__always)
    func byte(at offset: Int) -> UInt8 { unsafe unsafeLoad(fromUncheckedByteOffset: offset, as: UInt8.self) }

    @inlinable @inline(__always)
    func big16(at offset: Int) -> UInt16 {
        unsafe UInt16(bigEndian: unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt16.self))
    }

    @inlinable @inline(__always)
    func big32(at offset: Int) -> UInt32 {
        unsafe UInt32(bigEndian: unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt32.self))
    }

    @inlinable @inline(__always)
    func big64(at offset: Int) -> UInt64 {
        unsafe UInt64(bigEndian: unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self))
    }

    /// A load in the machine's own order: the virtio-net header's, and what a checksum adds up.
    @inlinable @inline(__always)
    func native<Value: BitwiseCopyable>(at offset: Int, as type: Value.Type) -> Value {
        unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: type)
    }

    @inlinable @inline(__always)
    func address6(at offset: Int) -> IPv6Address { IPv6Address(high: big64(at: offset), low: big64(at: offset + 8)) }
}

extension MutableRawSpan {
    /// Stores `value` in the machine's own order.
    @inlinable @inline(__always) @_lifetime(self: copy self)
    mutating func put<Value: BitwiseCopyable>(_ value: Value, at offset: Int) {
        unsafe storeBytes(of: value, toUncheckedByteOffset: offset, as: Value.self)
    }

    @inlinable @inline(__always) @_lifetime(self: copy self)
    mutating func put(big value: UInt16, at offset: Int) { put(value.bigEndian, at: offset) }

    @inlinable @inline(__always) @_lifetime(self: copy self)
    mutating func put(big value: UInt32, at offset: Int) { put(value.bigEndian, at: offset) }

    @inlinable @inline(__always) @_lifetime(self: copy self)
    mutating func put(big value: UInt64, at offset: Int) { put(value.bigEndian, at: offset) }

    /// Copies bytes within the memory; source and target must not overlap.
    @inlinable @inline(__always) @_lifetime(self: copy self)
    mutating func copy(from source: Int, to target: Int, count: Int) {
        unsafe withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            unsafe (base + target).copyMemory(from: base + source, byteCount: count)
        }
    }

    @inlinable @inline(__always) @_lifetime(self: copy self)
    mutating func put(_ address: IPv6Address, at offset: Int) {
        put(big: address.high, at: offset)
        put(big: address.low, at: offset + 8)
    }
}
