import Glibc
import Testing

@testable import tund

@Suite struct ControlErrorTests {
    @Test(arguments: [
        (ControlError("set tund0 up", code: EPERM), "cannot set tund0 up: Operation not permitted (needs CAP_NET_ADMIN)"),
        (ControlError("set tund0 up", code: EINVAL), "cannot set tund0 up: Invalid argument"),
        (
            ControlError("set tund0 up", code: EPERM, remedy: "ask root"),
            "cannot set tund0 up: Operation not permitted (ask root)"
        ),
        (ControlError("use --dev x", reason: "there is no such interface"), "cannot use --dev x: there is no such interface"),
    ])
    func saysAttemptReasonAndRemedy(_ error: ControlError, _ text: String) {
        #expect(error.description == text)
    }
}
