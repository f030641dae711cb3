import Testing
import TunnelCore

@Suite struct ProtocolNumberTests {
    // IANA protocol numbers
    @Test(
        arguments: [
            (ProtocolNumber.hopByHop, 0), (ProtocolNumber.icmpv4, 1), (ProtocolNumber.ipv4, 4), (ProtocolNumber.tcp, 6),
            (ProtocolNumber.udp, 17), (ProtocolNumber.ipv6, 41), (ProtocolNumber.routing, 43), (ProtocolNumber.fragment, 44),
            (ProtocolNumber.authentication, 51), (ProtocolNumber.icmpv6, 58), (ProtocolNumber.noNextHeader, 59),
            (ProtocolNumber.destinationOptions, 60), (ProtocolNumber.mobility, 135), (ProtocolNumber.hostIdentity, 139),
            (ProtocolNumber.shim6, 140),
        ] as [(UInt8, UInt8)])
    func assigned(number: UInt8, expected: UInt8) { #expect(number == expected) }
}
