"""Packets from the host's side that tund must not send: each has its counter, and the host hears nothing either.

    packet socket on tund0 -> tund on the host 10.0.0.1 ------ far end, which sees what is sent

The packet socket stands in for a process of the host whose packets the IPv6 stack routed into the tunnel, and puts there
what that stack would not let through.
"""

import pytest

from packets import (
    DOMAIN, HERE, ICMP, IP, LOCAL, PEER, PROTOCOL_IPV6, THERE, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw, inner,
)  # fmt: skip
from wire import HostOnAWire, show

OUTSIDE = "2001:db8:99::1"
PRIVATE_6TO4 = {"here": "2002:a00:1::1", "there": "2002:a00:2::1"}
PUBLIC_6TO4 = {"address": "11.0.0.1/8", "here": "2002:b00:1::1", "peer": "11.0.0.2", "there": "2002:b00:2::1"}
REMOTE = {"here": "fe80::a00:1", "there": "fe80::a00:2"}

#: {mode: (options, where the host is)}
MODES = {
    "domain": (DOMAIN, {}),
    "local prefix": (f"{DOMAIN} --local-prefix 2001:db8:7::/48", {}),
    "relay": (f"{DOMAIN} --relay 10.0.0.254", {}),
    "border relay": (f"{DOMAIN} --border-relay", {}),
    "6to4": ("", PRIVATE_6TO4),
    "public 6to4": ("", PUBLIC_6TO4),
    "remote": (f"--remote {PEER}", REMOTE),
    "ttl inherit": (f"{DOMAIN} --ttl inherit", {}),
    "remote, ttl inherit": (f"--remote {PEER} --ttl inherit", REMOTE),
}


@pytest.fixture(scope="module")
def host_in(one_at_a_time):
    """The host in one of the MODES."""

    @one_at_a_time
    def host(lab, mode):
        options, where = MODES[mode]
        return HostOnAWire(lab, options, **where)

    return host


def out(destination: str = THERE, source: str = HERE, **fields):
    return inner(source, destination, **fields)


def from_6to4(destination: str):
    return inner("2002:a00:1::1", destination)


def from_public(destination: str):
    return inner("2002:b00:1::1", destination)


#: {mode: [(what, the IPv4 destination it must be sent to, the inner packet)]}
PASS = {
    "domain": [
        ("a host of the domain", PEER, out()),
        ("any address of both prefixes", PEER, out("fd12:3456:7800:2:8000::9", "fd12:3456:7800:1:ffff::7")),
        ("a host off the link", "10.200.3.4", out("fd12:3456:78c8:304::1")),
        ("no payload", PEER, out(payload=b"")),
        ("extension headers without a tunnel", PEER, out(payload=IPv6ExtHdrDestOpt(nh=59) / Raw(b"end"))),
        ("hop limit 0 with a fixed TTL", PEER, out(hlim=0)),
    ],
    "local prefix": [("from the local prefix", PEER, out(THERE, "2001:db8:7:8::9"))],
    "relay": [("out of the domain", "10.0.0.254", out(OUTSIDE)), ("a host of the domain", PEER, out())],
    "border relay": [("from outside", PEER, out(THERE, OUTSIDE)), ("from its own prefix", PEER, out())],
    "6to4": [
        ("a private address from a private one", "10.0.0.9", from_6to4("2002:a00:9::1")),
        ("another private network", "192.168.1.1", from_6to4("2002:c0a8:101::1")),
        ("a public address", "11.0.0.9", from_6to4("2002:b00:9::1")),
    ],
    "public 6to4": [
        ("a public address", "11.0.0.9", from_public("2002:b00:9::1")),
        ("just below 10/8", "9.255.255.255", from_public("2002:9ff:ffff::1")),
        ("just above 172.16/12", "172.32.0.1", from_public("2002:ac20:1::1")),
        ("just below 192.168/16", "192.167.255.1", from_public("2002:c0a7:ff01::1")),
    ],
    "remote": [
        ("global addresses", PEER, out("2001:db8::1", OUTSIDE)),
        ("link-local", PEER, out("fe80::a00:2", "fe80::a00:1")),
        ("all nodes", PEER, out("ff02::1", "fe80::a00:1")),
        ("the default domain means nothing", PEER, out("2002:a00:9::1", "2002:a00:8::1")),
    ],
    "ttl inherit": [("hop limit 1", PEER, out(hlim=1))],
}

#: {mode: [(what, reason, the inner packet)]}
DROP = {
    "domain": [
        *[(f"version {version}", "not-ipv6", bytes([version << 4]) + bytes(out())[1:]) for version in (0, 4, 5, 7, 15)],
        ("an IPv4 packet", "not-ipv6", IP(src=LOCAL, dst=PEER) / ICMP() / Raw(bytes(40))),
        ("payload length one too long", "truncated", out(payload=b"12345678", plen=9)),
        ("payload length 65535", "truncated", out(plen=65535)),
        ("IPv6 in IPv6", "nested-tunnel", out(payload=IPv6() / Raw(b"nested"))),
        ("IPv4 in IPv6", "nested-tunnel", out(payload=IP() / ICMP())),
        ("next header 41 and no payload", "nested-tunnel", out(payload=b"", nh=PROTOCOL_IPV6)),
        *[(f"{number} behind {what}", "nested-tunnel", out(payload=header(nh=number) / tunnel))
          for number, tunnel in [(41, IPv6() / Raw(b"nested")), (4, IP() / ICMP())]
          for what, header in [
              ("hop-by-hop options", IPv6ExtHdrHopByHop), ("destination options", IPv6ExtHdrDestOpt),
              ("a routing header", IPv6ExtHdrRouting), ("a fragment header", IPv6ExtHdrFragment)]],
        *[(f"to {group}", "multicast-destination", out(group)) for group in ("ff02::1", "ff02::16", "ff05::2", "ff0e::1")],
        *[(f"to {address}", "link-local-destination", out(address)) for address in ("fe80::1", "fe80::a00:2", "febf::1")],
        *[(f"from {source}", "foreign-source", out(THERE, source)) for source in
          ["fd12:3456:7800:3::1", THERE, OUTSIDE, "2002:a00:1::1", "fe80::a00:1", "::", "::1", "fd12:3456:7800:2::1"]],
        *[(f"to {address} of our own", "local-destination", out(address)) for address in
          ["fd12:3456:7800:1::1", "fd12:3456:7800:1::2", "fd12:3456:7800:1:ffff:ffff:ffff:ffff"]],
        *[(f"to {address} outside", "no-route", out(address)) for address in
          [OUTSIDE, "2002:a00:2::1", "fd12:3456:7900:2::1", "fd12:3456:77ff:2::1"]],
        ("to the underlay's broadcast address", "martian-destination", out("fd12:3456:78ff:ffff::1")),
    ],
    "local prefix": [
        ("to the local prefix", "local-destination", out("2001:db8:7:8::9")),
        ("from beside the local prefix", "foreign-source", out(THERE, "2001:db8:8::1")),
    ],
    "relay": [("from outside", "foreign-source", out(OUTSIDE, "2001:db8::1"))],
    "border relay": [
        ("from another host of the domain", "foreign-source", out(THERE, "fd12:3456:7800:3::1")),
        ("to its own prefix from outside", "local-destination", out("fd12:3456:7800:1::9", OUTSIDE)),
        ("from outside to outside", "no-route", out("2001:db8::1", OUTSIDE)),
    ],
    "6to4": [
        *[(f"embedded {v4}", "martian-destination", from_6to4(address)) for v4, address in [
            ("0.0.0.0", "2002::1"), ("0.1.2.3", "2002:1:203::1"), ("127.0.0.1", "2002:7f00:1::1"),
            ("127.255.255.255", "2002:7fff:ffff::1"), ("224.0.0.1", "2002:e000:1::1"), ("239.255.255.255", "2002:efff:ffff::1"),
            ("240.0.0.1", "2002:f000:1::1"), ("255.255.255.255", "2002:ffff:ffff::1"),
            ("10.255.255.255, our broadcast", "2002:aff:ffff::1")]],
        ("outside", "no-route", from_6to4(OUTSIDE)),
    ],
    "public 6to4": [
        *[(f"embedded {v4}", "private-destination", from_public(address)) for v4, address in [
            ("10.0.0.1", "2002:a00:1::1"), ("10.255.255.255", "2002:aff:ffff::1"), ("172.16.0.1", "2002:ac10:1::1"),
            ("172.31.255.255", "2002:ac1f:ffff::1"), ("192.168.0.1", "2002:c0a8:1::1")]],
        ("embedded 127.0.0.1", "martian-destination", from_public("2002:7f00:1::1")),
    ],
    "remote": [
        ("version 4", "not-ipv6", bytes([0x45]) + bytes(out())[1:]),
        ("truncated", "truncated", out("2001:db8::1", OUTSIDE, plen=999)),
        ("IPv6 in IPv6", "nested-tunnel", out("2001:db8::1", OUTSIDE, payload=IPv6() / Raw(b"nested"))),
        ("IPv4 in IPv6", "nested-tunnel", out("2001:db8::1", OUTSIDE, payload=IP() / ICMP())),
    ],
    "ttl inherit": [("hop limit 0", "hop-limit-zero", out(hlim=0))],
    "remote, ttl inherit": [("hop limit 0", "hop-limit-zero", out("2001:db8::1", OUTSIDE, hlim=0))],
}  # fmt: skip


def table(cases: dict[str, list[tuple]]):
    rows = [(mode, *row) for mode, rows in cases.items() for row in rows]
    return pytest.mark.parametrize("mode, row", [(r[0], r[2:]) for r in rows], ids=[f"{r[0]}: {r[1]}" for r in rows])


@table(PASS)
def test_is_sent(host_in, mode, row):
    """Unchanged behind an IPv4 header: from the local address to the host that the inner destination belongs to."""
    destination, packet = row
    host = host_in(mode)
    seen = host.observe(from_host=[packet])
    assert seen.counters == {"uplink.packets": 1, "uplink.bytes": len(bytes(packet))}
    [outer] = map(IP, seen.to_wire)
    assert (outer.src, outer.dst, outer.proto) == (host.local, destination, PROTOCOL_IPV6)
    assert bytes(outer.payload) == bytes(packet)


def assert_dropped(host, packet, reason):
    seen = host.observe(from_host=[packet])
    assert seen.counters == {f"uplink.{reason}": 1}
    assert not seen.to_wire, show(seen.to_wire)
    assert not seen.to_host, show(seen.to_host)


@table(DROP)
def test_is_dropped(host_in, mode, row):
    reason, packet = row
    assert_dropped(host_in(mode), packet, reason)


@pytest.mark.parametrize("length", range(1, 40))
def test_short(host_in, length):
    assert_dropped(host_in("domain"), bytes(out())[:length], "short")


def test_the_hosts_own_multicast_is_dropped(lab):
    """Through the IPv6 stack this time: what a host says to its neighbours has no place in a domain."""
    host = HostOnAWire(lab)
    host.host.run("nft delete table ip6 quiet")
    before = host.tund.counters()["uplink.multicast-destination"]
    host.host.run("ping -6 -c 3 -i 0.2 -W 1 -I tund0 ff02::1", check=False)
    host.settle()
    assert host.tund.counters()["uplink.multicast-destination"] >= before + 3
