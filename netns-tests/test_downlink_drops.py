"""Packets from the underlay that tund must not take: each has its counter, and nobody hears of it.

    far end (no tund) ------ eth0 10.0.0.1 host, tund0 fd12:3456:7800:1::1
    sends as any IPv4 host

First comes what must pass, so that silence means a drop. `downlink.outer-header` and `downlink.outer-destination` cannot be
provoked from here: the kernel's own IPv4 layer stands before the raw socket, see the last tests.
"""

import functools

import pytest

from packets import (
    DOMAIN, HERE, ICMP, IP, LOCAL, PEER, THERE, ICMPv6EchoReply, ICMPv6EchoRequest, IPOption_NOP, IPOption_RR, IPv6,
    IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw, fragment, in_ipv4, inner,
)  # fmt: skip
from wire import HostOnAWire, show

OTHER, OTHERS = "10.0.0.3", "fd12:3456:7800:3::1"
OUTSIDE = "2001:db8:99::1"
RELAY, DISTANT_RELAY = "10.0.0.254", "192.88.99.1"

MODES = {
    "domain": DOMAIN,
    "relays": f"{DOMAIN} --relay {RELAY} --relay {DISTANT_RELAY}",
    "route": f"{DOMAIN} --route 2001:db8:5::/48=10.0.0.5 --route 2001:db8:6::/48=192.0.2.6",
    "local prefix": f"{DOMAIN} --local-prefix 2001:db8:7::/48 --relay {RELAY}",
    "border relay": f"{DOMAIN} --border-relay",
    "remote": f"--remote {PEER}",
}


@pytest.fixture(scope="module")
def host_in(one_at_a_time):
    """The host in one of the MODES."""

    def accept_strange_sources(host):
        """As far as a kernel can be talked into it: sources of loopback, our own, and none with a route back."""
        host.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__eth0__rp_filter=0, ipv4__conf__eth0__accept_local=1,
                    ipv4__conf__eth0__route_localnet=1)

    @one_at_a_time
    def host(lab, mode):
        link_local = {"here": "fe80::a00:1", "there": "fe80::a00:2"} if mode == "remote" else {}
        return HostOnAWire(lab, MODES[mode], before_tund=accept_strange_sources, **link_local)

    return host


def tunnel6(**fields):
    """IPv6 in IPv6: the header that makes a packet a nested tunnel."""
    return IPv6(src="2001:db8::1", dst="2001:db8::2", **fields) / Raw(b"nested")


def tunnel4():
    return IP(src="192.0.2.1", dst="192.0.2.2") / ICMP()


def authentication_header(next_header: int) -> Raw:
    """RFC 4302: its length counts 32-bit words, minus 2."""
    return Raw(bytes([next_header, 4, 0, 0, *range(20)]))


def with_version(version: int, packet) -> bytes:
    octets = bytearray(bytes(packet))
    octets[0] = version << 4 | octets[0] & 0x0F
    return bytes(octets)


def nest(*headers, tunnel):
    """THERE to HERE with extension headers before the nested packet."""
    return in_ipv4(functools.reduce(lambda packet, header: packet / header, headers, IPv6(src=THERE, dst=HERE)) / tunnel)


#: {mode: [(what, the inner packet that must come out, the outer packet)]}
PASS = {
    "domain": [
        ("a host of the domain", inner(), in_ipv4()),
        ("another host of the domain", inner(OTHERS), in_ipv4(inner(OTHERS), OTHER)),
        ("any address of both prefixes", inner("fd12:3456:7800:2:8000::9", "fd12:3456:7800:1:ffff::7"),
         in_ipv4(inner("fd12:3456:7800:2:8000::9", "fd12:3456:7800:1:ffff::7"))),
        ("no payload at all", inner(payload=b""), in_ipv4(inner(payload=b""))),
        ("bytes beyond the payload length are trimmed", inner(), in_ipv4(bytes(inner()) + b"trailer")),
        ("all trimmed", inner(payload=b"", plen=0), in_ipv4(inner(payload=b"trailer", plen=0))),
        ("IPv4 options: no operation", inner(), in_ipv4(options=[IPOption_NOP()] * 4)),
        ("IPv4 options: record route", inner(), in_ipv4(options=[IPOption_RR(length=7, pointer=4, routers=["0.0.0.0"])])),
        ("TTL 1", inner(), in_ipv4(ttl=1)),
        ("hop limit 0 is the host's business", inner(hlim=0), in_ipv4(inner(hlim=0))),
        ("extension headers without a tunnel", inner(payload=IPv6ExtHdrDestOpt(nh=59) / Raw(b"end")),
         in_ipv4(inner(payload=IPv6ExtHdrDestOpt(nh=59) / Raw(b"end")))),
        ("the byte 41 in the payload", inner(payload=b"\x29" * 40), in_ipv4(inner(payload=b"\x29" * 40))),
    ],
    "relays": [
        ("a host of the domain", inner(), in_ipv4()),
        ("from outside by a relay", inner(OUTSIDE), in_ipv4(inner(OUTSIDE), RELAY)),
        ("from outside by a relay beyond R/m", inner(OUTSIDE), in_ipv4(inner(OUTSIDE), DISTANT_RELAY)),
        ("the relay's own prefix", inner("fd12:3456:7800:fe::1"), in_ipv4(inner("fd12:3456:7800:fe::1"), RELAY)),
    ],
    "route": [
        ("from the network behind a route", inner("2001:db8:5::1"), in_ipv4(inner("2001:db8:5::1"), "10.0.0.5")),
        ("by an endpoint beyond R/m", inner("2001:db8:6::1"), in_ipv4(inner("2001:db8:6::1"), "192.0.2.6")),
        ("the endpoint's own prefix", inner("fd12:3456:7800:5::1"), in_ipv4(inner("fd12:3456:7800:5::1"), "10.0.0.5")),
    ],
    "local prefix": [
        ("to a local prefix", inner(THERE, "2001:db8:7:8::9"), in_ipv4(inner(THERE, "2001:db8:7:8::9"))),
    ],
    "border relay": [
        ("to its own prefix", inner(), in_ipv4()),
        ("out of the domain", inner(THERE, OUTSIDE), in_ipv4(inner(THERE, OUTSIDE))),
    ],
    "remote": [
        ("global addresses", inner(OUTSIDE, "2001:db8::1"), in_ipv4(inner(OUTSIDE, "2001:db8::1"))),
        ("addresses of the default domain", inner("2002:a00:3::1", "2002:a00:4::1"),
         in_ipv4(inner("2002:a00:3::1", "2002:a00:4::1"))),
        ("all nodes", inner("fe80::a00:2", "ff02::1"), in_ipv4(inner("fe80::a00:2", "ff02::1"))),
        ("link-local", inner("fe80::a00:2", "fe80::a00:1"), in_ipv4(inner("fe80::a00:2", "fe80::a00:1"))),
        ("the unspecified source", inner("::", "ff02::16"), in_ipv4(inner("::", "ff02::16"))),
    ],
}  # fmt: skip

DOMAIN_DROPS = [
    # Structure
    *[(f"version {version}", "not-ipv6", in_ipv4(with_version(version, inner()))) for version in range(16) if version != 6],
    ("an IPv4 packet inside", "not-ipv6", in_ipv4(IP(src=PEER, dst=LOCAL) / ICMP() / Raw(b"inner version 4"))),
    ("payload length one too long", "truncated", in_ipv4(inner(payload=b"12345678", plen=9))),
    ("payload length 65535", "truncated", in_ipv4(inner(plen=65535))),
    ("payload length 1 and no payload", "truncated", in_ipv4(inner(payload=b"", plen=1))),
    # Outer source
    *[(f"outer source {source}", "outer-source-martian", in_ipv4(source=source)) for source in
      ["0.1.2.3", "127.0.0.1", "127.255.255.254", "240.0.0.1", "255.255.255.254", "10.255.255.255", LOCAL]],
    ("outer source beyond R/m", "outer-source-unknown", in_ipv4(source="192.0.2.7")),
    ("beyond R/m, with the inner source of a host", "outer-source-unknown", in_ipv4(inner(), "11.0.0.2")),
    # Nested tunnels
    ("IPv6 in IPv6", "nested-tunnel", nest(tunnel=tunnel6())),
    ("IPv4 in IPv6", "nested-tunnel", nest(tunnel=tunnel4())),
    ("IPv6 in IPv6 to ourselves", "nested-tunnel", in_ipv4(IPv6(src=THERE, dst=HERE) / inner())),
    ("next header 41 and no payload", "nested-tunnel", in_ipv4(inner(payload=b"", nh=41))),
    ("next header 4 and no payload", "nested-tunnel", in_ipv4(inner(payload=b"", nh=4))),
    *[(f"{number} behind {what}", "nested-tunnel", nest(header(nh=number), tunnel=tunnel))
      for number, tunnel in [(41, tunnel6()), (4, tunnel4())]
      for what, header in [
          ("hop-by-hop options", IPv6ExtHdrHopByHop), ("destination options", IPv6ExtHdrDestOpt),
          ("a routing header", IPv6ExtHdrRouting), ("a fragment header", IPv6ExtHdrFragment)]],
    ("41 behind a first fragment", "nested-tunnel", nest(IPv6ExtHdrFragment(nh=41, m=1), tunnel=tunnel6())),
    ("41 behind an authentication header", "nested-tunnel",
     in_ipv4(IPv6(src=THERE, dst=HERE, nh=51) / authentication_header(41) / tunnel6())),
    ("41 behind a long option", "nested-tunnel",
     in_ipv4(IPv6(src=THERE, dst=HERE, nh=60) / Raw(bytes([41, 31, 1, 252]) + bytes(252)) / tunnel6())),
    ("41 behind four kinds of headers", "nested-tunnel",
     nest(IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(), IPv6ExtHdrFragment(nh=41), tunnel=tunnel6())),
    ("4 behind eight headers", "nested-tunnel", nest(*[IPv6ExtHdrDestOpt()] * 7, IPv6ExtHdrDestOpt(nh=4), tunnel=tunnel4())),
    # Inner source
    *[(f"inner source {source}", "inner-source-invalid", in_ipv4(inner(source))) for source in
      ["::", "::1", "ff02::1", "ff0e::2", "::10.0.0.2", "::192.0.2.1", "::ffff:10.0.0.2", "::ffff:192.0.2.1",
       "fe80::a00:2", "febf::1"]],
    ("the inner source of another host", "inner-source-spoofed", in_ipv4(inner(OTHERS))),
    ("our own address as inner source", "inner-source-spoofed", in_ipv4(inner(HERE))),
    ("the domain's zeroth host as inner source", "inner-source-spoofed", in_ipv4(inner("fd12:3456:7800::1"))),
    ("the last bit of the embedded address", "inner-source-spoofed", in_ipv4(inner(), "10.0.0.3")),
    ("the first bit of the embedded address", "inner-source-spoofed", in_ipv4(inner(), "10.128.0.2")),
    *[(f"inner source {source} outside the domain", "inner-source-unauthorized", in_ipv4(inner(source))) for source in
      [OUTSIDE, "2002:a00:2::1", "fd12:3456:7900::2", "fd12:3456:77ff::2", "fd11::1"]],
    # Inner destination
    *[(f"inner destination {destination}", "inner-destination-invalid", in_ipv4(inner(THERE, destination))) for destination in
      ["ff02::1", "ff05::2", "ff0e::1", "fe80::1", "fe80::a00:1", "::", "::1", "::10.0.0.1", "::ffff:10.0.0.1"]],
    *[(f"inner destination {destination}", "inner-destination-foreign", in_ipv4(inner(THERE, destination))) for destination in
      [OTHERS, THERE, "fd12:3456:7800:2::2", "fd12:3456:7800::1", OUTSIDE, "2002:a00:1::1"]],
    # ECN
    ("outer CE, inner Not-ECT", "ecn", in_ipv4(tos=3)),
    ("outer CE with DSCP, inner Not-ECT", "ecn", in_ipv4(tos=0xBB)),
    # Two reasons: the contract's order decides.
    ("short and of unknown source", "short", in_ipv4(bytes(39), "192.0.2.7")),
    ("not IPv6 and truncated", "not-ipv6", in_ipv4(with_version(5, inner(plen=999)))),
    ("not IPv6 and of unknown source", "not-ipv6", in_ipv4(with_version(4, inner()), "192.0.2.7")),
    ("truncated and of martian source", "truncated", in_ipv4(inner(plen=999), "127.0.0.1")),
    ("truncated and nested", "truncated", in_ipv4(inner(plen=999, nh=41))),
    ("unknown source and nested", "outer-source-unknown", in_ipv4(inner(payload=b"", nh=41), "192.0.2.7")),
    ("martian source and invalid inner source", "outer-source-martian", in_ipv4(inner("::1"), "240.0.0.1")),
    ("nested and spoofed", "nested-tunnel", in_ipv4(inner(OTHERS, nh=41))),
    ("nested and CE on Not-ECT", "nested-tunnel", in_ipv4(inner(nh=4), tos=3)),
    ("invalid inner source and destination", "inner-source-invalid", in_ipv4(inner("::1", "ff02::1"))),
    ("spoofed, to a foreign destination", "inner-source-spoofed", in_ipv4(inner(OTHERS, OTHERS))),
    ("unauthorized, to an invalid destination", "inner-source-unauthorized", in_ipv4(inner(OUTSIDE, "ff02::1"))),
    ("foreign destination and CE on Not-ECT", "inner-destination-foreign", in_ipv4(inner(THERE, OTHERS), tos=3)),
]  # fmt: skip

#: {mode: [(what, reason, the outer packet)]}
DROP = {
    "domain": DOMAIN_DROPS,
    "relays": [
        ("from outside, not by a relay", "inner-source-unauthorized", in_ipv4(inner(OUTSIDE))),
        ("a relay speaks for a host of the domain", "inner-source-spoofed", in_ipv4(inner(THERE), RELAY)),
        ("a relay beyond R/m speaks for a host", "inner-source-spoofed", in_ipv4(inner(THERE), DISTANT_RELAY)),
        ("a relay speaks for us", "inner-source-spoofed", in_ipv4(inner(HERE), RELAY)),
        ("a relay's invalid source", "inner-source-invalid", in_ipv4(inner("fe80::1"), RELAY)),
        ("a relay's nested tunnel", "nested-tunnel", in_ipv4(inner(OUTSIDE, nh=41), RELAY)),
        ("from outside to a foreign destination", "inner-destination-foreign", in_ipv4(inner(OUTSIDE, OTHERS), RELAY)),
        ("from outside to outside", "inner-destination-foreign", in_ipv4(inner(OUTSIDE, "2001:db8::1"), RELAY)),
        ("a neighbour of the distant relay", "outer-source-unknown", in_ipv4(inner(OUTSIDE), "192.88.99.2")),
    ],
    "route": [
        ("from the network, by another host", "inner-source-unauthorized", in_ipv4(inner("2001:db8:5::1"))),
        ("from the other route's network", "inner-source-unauthorized", in_ipv4(inner("2001:db8:6::1"), "10.0.0.5")),
        ("from beside the network", "inner-source-unauthorized", in_ipv4(inner("2001:db8:4:ffff::1"), "10.0.0.5")),
        ("an endpoint speaks for a host of the domain", "inner-source-spoofed", in_ipv4(inner(THERE), "10.0.0.5")),
        ("an endpoint beyond R/m speaks for a host", "inner-source-spoofed", in_ipv4(inner(THERE), "192.0.2.6")),
        ("a neighbour of the distant endpoint", "outer-source-unknown", in_ipv4(inner("2001:db8:6::1"), "192.0.2.7")),
    ],
    "local prefix": [
        ("to beside the local prefix", "inner-destination-foreign", in_ipv4(inner(THERE, "2001:db8:8::1"))),
        ("from the local prefix, by a host", "inner-source-spoofed", in_ipv4(inner("2001:db8:7::1"))),
        ("from the local prefix, by the relay", "inner-source-spoofed", in_ipv4(inner("2001:db8:7::1"), RELAY)),
        ("from the local prefix to the local prefix", "inner-source-spoofed",
         in_ipv4(inner("2001:db8:7::1", "2001:db8:7::2"), RELAY)),
    ],
    "border relay": [
        ("to another host of the domain", "inner-destination-foreign", in_ipv4(inner(THERE, OTHERS))),
        ("from outside, by a host of the domain", "inner-source-unauthorized", in_ipv4(inner(OUTSIDE))),
        ("from outside to outside", "inner-source-unauthorized", in_ipv4(inner(OUTSIDE, "2001:db8::1"))),
        ("spoofed, out of the domain", "inner-source-spoofed", in_ipv4(inner(OTHERS, OUTSIDE))),
        ("out of the domain from beyond R/m", "outer-source-unknown", in_ipv4(inner(THERE, OUTSIDE), "192.0.2.7")),
        *[(f"to {destination}", "inner-destination-invalid", in_ipv4(inner(THERE, destination))) for destination in
          ["ff0e::1", "fe80::1", "::", "::1", "::192.0.2.1", "::ffff:192.0.2.1"]],
        ("nested, out of the domain", "nested-tunnel", in_ipv4(inner(THERE, OUTSIDE, nh=4))),
    ],
    "remote": [
        ("version 4", "not-ipv6", in_ipv4(with_version(4, inner()))),
        ("truncated", "truncated", in_ipv4(inner(plen=999))),
        ("nested IPv6", "nested-tunnel", in_ipv4(inner(OUTSIDE, nh=41))),
        ("nested IPv4", "nested-tunnel", in_ipv4(inner(OUTSIDE, nh=4))),
        ("outer CE, inner Not-ECT", "ecn", in_ipv4(inner(OUTSIDE), tos=3)),
        ("39 bytes", "short", in_ipv4(bytes(inner())[:39])),
    ],
}  # fmt: skip


def table(cases: dict[str, list[tuple]]):
    rows = [(mode, *row) for mode, rows in cases.items() for row in rows]
    return pytest.mark.parametrize("mode, row", [(r[0], r[2:]) for r in rows], ids=[f"{r[0]}: {r[1]}" for r in rows])


@table(PASS)
def test_passes(host_in, mode, row):
    expected, packet = row
    seen = host_in(mode).observe(from_wire=[packet])
    assert seen.to_host == [bytes(expected)], show(seen.to_host)
    assert {name: rise for name, rise in seen.counters.items() if name.startswith("downlink")} == {
        "downlink.packets": 1, "downlink.bytes": len(bytes(expected)),
    }  # fmt: skip


def assert_dropped(host, packet, reason):
    seen = host.observe(from_wire=[packet])
    assert seen.counters == {f"downlink.{reason}": 1}
    assert not seen.to_host, show(seen.to_host)
    assert not seen.to_wire, show(seen.to_wire)


@table(DROP)
def test_is_dropped(host_in, mode, row):
    reason, packet = row
    assert_dropped(host_in(mode), packet, reason)


@pytest.mark.parametrize("addresses", [(OUTSIDE, "2001:db8::1"), ("fe80::a00:2", "fe80::a00:1")], ids=["global", "link-local"])
def test_point_to_point_another_host_is_not_heard(host_in, addresses):
    """Its packets find none of tund's sockets, so there is nothing to count; and the kernel says nothing about them, either."""
    seen = host_in("remote").observe(from_wire=[in_ipv4(inner(*addresses), OTHER)])
    assert not seen.to_host and not seen.counters and not seen.to_wire, show(seen.to_wire)


@pytest.mark.parametrize("length", range(40))
def test_short(host_in, length):
    """Everything of a valid packet but its end: less than an IPv6 header cannot even be looked at."""
    assert_dropped(host_in("domain"), in_ipv4(bytes(inner())[:length]), "short")


# The public prober for open tunnels asks a 6in4 host in five ways (USENIX Security 2025, "Haunted by Legacy"). It knows the
# host's IPv4 address, so it takes the IPv4-mapped one for the inner address, beside the real ones tried here.

PROBER = "2001:db8:bad::1"
VICTIM = "2a02:2c40:0:80::80:15"
PROBES = {
    "standard": IPv6(src="::ffff:10.0.0.1", dst=PROBER) / ICMPv6EchoReply(),
    "subnet spoof": IPv6(src="::ffff:10.0.0.0", dst=PROBER) / ICMPv6EchoReply(),
    "spoof": IPv6(src=VICTIM, dst=PROBER) / ICMPv6EchoReply(),
    "ping": IPv6(src=PROBER, dst="::ffff:10.0.0.1") / ICMPv6EchoRequest(),
    "TTL expired": IPv6(src=PROBER, dst=VICTIM, hlim=0) / ICMPv6EchoReply(),
    "standard, real address": IPv6(src=HERE, dst=PROBER) / ICMPv6EchoReply(),
    "subnet spoof, real address": IPv6(src="fd12:3456:7800:1::2", dst=PROBER) / ICMPv6EchoReply(),
    "ping, real address": IPv6(src=PROBER, dst=HERE) / ICMPv6EchoRequest(),
    "ping, link-local": IPv6(src=PROBER, dst="fe80::a00:1") / ICMPv6EchoRequest(),
    "TTL expired at the host": IPv6(src=PROBER, dst=HERE, hlim=0) / ICMPv6EchoReply(),
}


@pytest.mark.parametrize("prober", ["192.0.2.66", OTHER], ids=["from anywhere", "from a host of the domain"])
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("mode", MODES)
def test_a_prober_finds_the_host_closed(host_in, mode, probe, prober):
    seen = host_in(mode).observe(from_wire=[in_ipv4(PROBES[probe] / Raw(b"AAAAtagged"), prober)])
    assert not seen.to_wire and not seen.to_host, show(seen.to_wire + seen.to_host)
    # Point to point tund does not see it.
    assert sum(seen.counters.values()) == (mode != "remote") and all(name.startswith("downlink.") for name in seen.counters)


# What IPv4 does before tund: fragments arrive as whole packets, and packets IPv4 refuses never arrive.


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "last first"])
def test_ipv4_fragments_arrive_as_one_packet(host_in, order):
    whole = inner(payload=bytes(range(256)) * 4)
    fragments = fragment(in_ipv4(whole, id=4141), fragsize=400)
    assert len(fragments) == 3
    seen = host_in("domain").observe(from_wire=fragments[::order])
    assert seen.to_host == [bytes(whole)] and seen.counters["downlink.packets"] == 1


def test_fragments_do_not_evade_the_checks(host_in):
    host = host_in("domain")
    for number, (packet, reason) in enumerate([
        (inner(OTHERS, payload=bytes(1000)), "inner-source-spoofed"),
        (inner(payload=bytes(1000), nh=41), "nested-tunnel"),
        (inner(payload=bytes(1000), plen=1001), "truncated"),
    ]):  # fmt: skip
        seen = host.observe(from_wire=fragment(in_ipv4(packet, id=5000 + number), fragsize=400))
        assert seen.counters == {f"downlink.{reason}": 1} and not seen.to_host and not seen.to_wire


KERNEL = [
    # The IPv4 layer has these sources for martians and gives them to no socket, so tund cannot count them.
    *[(f"source {source}", in_ipv4(source=source)) for source in ["0.0.0.0", "224.0.0.1", "239.255.255.255", "255.255.255.255"]],
    ("a fragment without its others", in_ipv4(inner(), flags="MF", id=99)),
    ("a last fragment alone", in_ipv4(inner(), frag=100, id=98)),
    ("IPv4 version 5", in_ipv4(version=5)),
    ("IPv4 header of 16 bytes", in_ipv4(ihl=4)),
    ("IPv4 header longer than the packet", in_ipv4(b"", ihl=15)),
    ("IPv4 total length beyond the packet", in_ipv4(len=1000)),
    ("IPv4 total length shorter than its header", in_ipv4(len=19)),
    ("IPv4 checksum", in_ipv4(chksum=0x0001)),
    # The socket is bound to the local address, so other destinations of the host are none of its business either.
    ("to the broadcast address", in_ipv4(destination="10.255.255.255")),
    ("to all broadcast", in_ipv4(destination="255.255.255.255")),
    ("to a multicast group", in_ipv4(destination="224.0.0.1")),
    ("to another host", in_ipv4(destination="10.0.0.77")),
    ("another protocol, 4", IP(src=PEER, dst="10.0.0.77", proto=4) / bytes(inner())),
]  # fmt: skip


@pytest.mark.parametrize("packet", [row[1] for row in KERNEL], ids=[row[0] for row in KERNEL])
def test_never_gets_to_tund(host_in, packet):
    seen = host_in("domain").observe(from_wire=[packet])
    assert not seen.counters and not seen.to_host and not seen.to_wire


def test_not_for_a_second_address_of_the_host(lab):
    """Who sends protocol 41 to an address without a tunnel hears from the kernel (protocol unreachable), not from tund."""
    host = HostOnAWire(lab, DOMAIN, before_tund=lambda host: host.ip("addr add 10.0.0.11/8 dev eth0"))
    seen = host.observe(from_wire=[in_ipv4(inner(), destination="10.0.0.11")])
    assert not seen.counters and not seen.to_host
    assert all(IP(packet).proto == 1 for packet in seen.to_wire)
