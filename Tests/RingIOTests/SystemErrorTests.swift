import Glibc
import Testing

@testable import RingIO

@Suite struct SystemErrorTests {
    @Test(arguments: [(EPERM, "EPERM"), (ENETUNREACH, "ENETUNREACH"), (EMSGSIZE, "EMSGSIZE"), (4095, "errno-4095")])
    func names(code: Int32, name: String) {
        #expect(SystemError.name(of: code) == name)
    }

    @Test func saysWhatWasCalledAndWhy() {
        #expect("\(SystemError("bind", code: EADDRNOTAVAIL))" == "bind: Cannot assign requested address")
    }

    @Test func errorTableCountsByOperationAndCode() {
        let table = ErrorTable()
        table.count(.underlaySend, code: ENETUNREACH)
        table.count(.underlaySend, code: ENETUNREACH)
        table.count(.tunWrite, code: EIO)
        table.count(.tunRead, code: 5000)
        #expect(table.total(.underlaySend, code: ENETUNREACH) == 2)
        #expect(table.total(.tunWrite, code: EIO) == 1)
        #expect(table.total(.tunWrite, code: ENETUNREACH) == 0)
        #expect(table.total(.tunRead, code: 0) == 1, "a code out of range is still counted")
    }
}
