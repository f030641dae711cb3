import Testing
import TunnelCore

@Suite struct FixedListTests {
    @Test func holdsWhatIsAppended() {
        var list = FixedList<Int>(capacity: 3)
        var (count, capacity) = (list.count, list.capacity)
        #expect(count == 0 && capacity == 3)
        for value in [7, 8, 9] { list.append(value) }
        let values = [list[0], list[1], list[2]]
        (count, capacity) = (list.count, list.capacity)
        #expect(values == [7, 8, 9])
        #expect(count == 3 && capacity == 3)
    }

    @Test func elementsCanBeReplaced() {
        var list = FixedList<UInt8>(capacity: 2)
        list.append(1)
        list.append(2)
        list[1] = 9
        let values = [list[0], list[1]]
        #expect(values == [1, 9])
    }

    @Test func removeAllMakesRoom() {
        var list = FixedList<Int>(capacity: 2)
        for round in 0..<3 {
            list.append(round)
            list.append(round + 10)
            let values = [list[0], list[1]]
            #expect(values == [round, round + 10])
            list.removeAll()
            let (count, capacity) = (list.count, list.capacity)
            #expect(count == 0 && capacity == 2)
        }
    }

    @Test func capacityMayBeZero() {
        let list = FixedList<Int>(capacity: 0)
        let count = list.count
        #expect(count == 0)
    }

    // A worker that overruns its room must stop, not write over its neighbour.
    @Test func appendingToAFullListStops() async {
        await #expect(processExitsWith: .failure) {
            var list = FixedList<Int>(capacity: 1)
            list.append(1)
            list.append(2)
        }
    }

    @Test func readingBehindTheEndStops() async {
        await #expect(processExitsWith: .failure) {
            var list = FixedList<Int>(capacity: 2)
            list.append(1)
            _ = list[1]
        }
    }
}
