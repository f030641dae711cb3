import Testing

@testable import tund

/// When the control thread looks at what may have changed.
@Suite struct ScheduleTests {
    @Test func aSingleChangeIsSeenAtOnceAndManyTogether() {
        var schedule = Schedule(rest: 0, longestUnrest: 0, pause: 100)
        schedule.request(at: 1000)
        #expect(schedule.due == 1000)
        let begins = schedule.begins(at: 1000)
        #expect(begins)
        schedule.ended(at: 1001, .done)
        for now in 1011...1050 { schedule.request(at: now) }
        #expect(schedule.due == 1101)
        let moments = [1100, 1101].map { schedule.begins(at: $0) }
        #expect(moments == [false, true])
    }

    @Test func changesComeToRestButNotForEver() {
        var schedule = Schedule(rest: 200, longestUnrest: 1000, pause: 0)
        schedule.request(at: 0)
        #expect(schedule.due == 200)
        for now in stride(from: 100, through: 1500, by: 100) { schedule.request(at: now) }
        #expect(schedule.due == 1000)
    }

    @Test func aFailureIsTriedAgainWithLessAndLessHaste() {
        var schedule = Schedule(rest: 0, longestUnrest: 0, pause: 100)
        var delays: [Int] = []
        for _ in 0..<8 {
            schedule.request(at: 0)
            _ = schedule.begins(at: 1 << 40)
            schedule.ended(at: 1 << 40, .failed)
            delays.append((schedule.due ?? -1) - 1 << 40)
        }
        #expect(delays == [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000])
        _ = schedule.begins(at: 1 << 41)
        schedule.ended(at: 0, .done)
        #expect(schedule.due == nil)
    }

    @Test func whatWasInterruptedIsLookedAtAgainSoon() {
        var schedule = Schedule(rest: 0, longestUnrest: 0, pause: 100)
        for _ in 0..<9 {
            schedule.request(at: 0)
            _ = schedule.begins(at: 1000)
            schedule.ended(at: 1000, .incomplete)
            #expect(schedule.due == 1300)
        }
    }

    @Test func looksThatTakeLongAreRare() {
        var schedule = Schedule(rest: 0, longestUnrest: 0, pause: 100)
        schedule.request(at: 0)
        _ = schedule.begins(at: 0)
        schedule.ended(at: 50, .done)
        schedule.request(at: 60)
        #expect(schedule.due == 1050)
    }

    @Test func aChangeDuringALookIsSeenAfterwards() {
        var schedule = Schedule(rest: 0, longestUnrest: 0, pause: 100)
        schedule.request(at: 0)
        _ = schedule.begins(at: 0)
        schedule.request(at: 1)
        schedule.ended(at: 2, .done)
        #expect(schedule.due == 102)
    }

    @Test func nobodyIsFoughtInHaste() {
        var schedule = Schedule(rest: 0, longestUnrest: 0, pause: 100)
        schedule.hold(until: 5000)
        schedule.request(at: 10)
        #expect(schedule.due == 5000)
    }
}
