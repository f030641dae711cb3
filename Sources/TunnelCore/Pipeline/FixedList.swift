/// A list with room for a number of elements, fixed when it is made: appending never allocates, and since it is not copyable
/// no access asks whether its storage is shared, as one to an Array does.
@safe
public struct FixedList<Element: BitwiseCopyable>: ~Copyable {
    @usableFromInline let storage: UnsafeMutablePointer<Element>
    public let capacity: Int
    @usableFromInline var elementCount = 0
    @inlinable public var count: Int { elementCount }

    public init(capacity: Int) {
        unsafe storage = UnsafeMutablePointer.allocate(capacity: capacity)
        self.capacity = capacity
    }

    deinit { unsafe storage.deallocate() }

    /// There must be room.
    @inlinable
    public mutating func append(_ element: Element) {
        precondition(elementCount < capacity, "FixedList is full")
        unsafe storage[elementCount] = element
        elementCount &+= 1
    }

    @inlinable
    public mutating func removeAll() { elementCount = 0 }

    /// Moves the rest to the front; there must be so many.
    public mutating func removeFirst(_ removed: Int) {
        precondition(removed >= 0 && removed <= elementCount)
        elementCount &-= removed
        unsafe storage.update(from: storage + removed, count: elementCount)
    }

    @inlinable
    public subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < count)
            return unsafe storage[index]
        }
        set {
            precondition(index >= 0 && index < count)
            unsafe storage[index] = newValue
        }
    }
}

extension FixedList: @unchecked Sendable where Element: Sendable {}
