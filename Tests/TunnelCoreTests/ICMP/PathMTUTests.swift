import Testing
import TunnelCore

@Suite struct PathMTUTests {
    @Test(arguments: [
        // The kernel's selftest (pmtu.sh): 4000 makes 3980.
        (4001, 4000, PathMTU.tooBig(mtu: 3980)),
        (1481, 1500, .tooBig(mtu: 1480)),
        (1480, 1400, .tooBig(mtu: 1380)),
        (1282, 1301, .tooBig(mtu: 1281)),
        (1281, 1300, .tooBig(mtu: 1280)),
        (1281, 576, .tooBig(mtu: 1280)),
        (1280, 1299, .fragment),
        (100, 88, .fragment),
        (65000, 88, .tooBig(mtu: 1280)),
        (100, 87, .tooNarrow),
        (1400, 68, .tooNarrow),
        (1281, 0, .tooBig(mtu: 1280)),
        (1280, 0, .fragment),
        (40, 1, .tooNarrow),
    ])
    func verdict(length: Int, path: Int, expected: PathMTU) {
        #expect(PathMTU(length: length, path: path) == expected)
    }
}
