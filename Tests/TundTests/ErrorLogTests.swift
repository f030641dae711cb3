import Testing
import TunnelCore

@testable import RingIO
@testable import tund

@Suite struct ErrorLogTests {
    /// Each kind is told when it is new, and then how much more there was.
    @Test func tellsWhatIsNew() {
        var log = ErrorLog()
        let errors = ErrorTable()
        var counters = Counters()
        func news() -> [String] { log.news(in: CounterReport([counters], [errors])) }
        #expect(news() == [])
        errors.count(.tunWrite, code: 5)
        #expect(news() == ["tun-write failed 1 time: Input/output error (EIO)"])
        #expect(news() == [])
        for _ in 0..<3 { errors.count(.tunWrite, code: 5) }
        #expect(news() == ["tun-write failed 3 times: Input/output error (EIO)"])
        counters.tcpMergingPauses = 1
        #expect(news() == ["the TUN refuses merged TCP but takes its packets one by one: so it gets them for 60 s"])
        counters.udpMergingPauses = 2
        #expect(news() == ["the TUN refuses merged UDP but takes its packets one by one: so it gets them for 60 s"])
        #expect(news() == [])
        counters.tcpMergingPauses = 2
        #expect(news().count == 1)
    }
}
