"""ISATAP (RFC 5214): the IPv4 network as one IPv6 link, with a potential router list.

    a 10.0.0.1 ---+                                           outside
    b 10.0.0.2 ---+--- switch --- router 10.0.0.254            plain IPv6, no tunnel
                                  tund0 --isatap --border-relay
                                  lan 2001:db8:1::1 --------- eth0 2001:db8:1::2

Then one host on a wire.
"""

import pytest

from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptPrefixInfo

import traffic
from packets import IP, LOCAL, PEER, IPv6, Raw, in_ipv4, inner
from wire import HostOnAWire, show

LINK = "2001:db8:5e::/64"
OUTSIDE = "2001:db8:1::2"


def on_link(host: str) -> str:
    """The address of a host with a private IPv4 address."""
    return f"2001:db8:5e::5efe:{host}"


def link_local(host: str) -> str:
    return f"fe80::5efe:{host}"


@pytest.fixture(scope="module")
def site(shared_lab):
    """(a, b, router, outside)"""
    a, b, router = shared_lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8", "router": "10.0.0.254/8"})
    outside = shared_lab.outside(router, "2001:db8:1::1", OUTSIDE)
    for host in (a, b):
        shared_lab.tund(host, f"--isatap --isatap-prefix {LINK} --prl 10.0.0.254 --default-route")
    shared_lab.tund(router, f"--isatap --isatap-prefix {LINK} --border-relay")
    return a, b, router, outside


def test_hosts_of_the_link(site):
    a, b, router, _ = site
    assert a.ping(on_link("10.0.0.2"), count=3) and b.ping(on_link("10.0.0.1"))
    assert a.ping(f"{link_local('10.0.0.2')}%tund0") and a.ping(f"{link_local('10.0.0.254')}%tund0")
    assert traffic.tcp(a, b, on_link("10.0.0.2"))
    assert router.ping(on_link("10.0.0.1"))


def test_through_the_router(site):
    a, b, _, outside = site
    assert a.ping(OUTSIDE, count=3) and outside.ping(on_link("10.0.0.2"))
    assert traffic.tcp(b, outside, OUTSIDE) and traffic.udp(outside, a, on_link("10.0.0.1"), count=100)


OPTIONS = f"--isatap --isatap-prefix {LINK} --prl 10.0.0.254"
ROUTER = "10.0.0.254"
ADVERTISEMENT = inner(
    link_local(ROUTER), link_local(LOCAL), ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="2001:db8:5e::"), hlim=255)


@pytest.fixture(scope="module")
def host_with(one_at_a_time):
    where = {"here": on_link(LOCAL), "there": on_link(PEER)}
    return one_at_a_time(lambda lab, options: HostOnAWire(lab, f"{OPTIONS} {options}", **where))


#: (what, the outer packet, the reason to drop it by strict and sit)
DOWNLINK = [
    ("a host of the link", in_ipv4(inner(on_link(PEER), on_link(LOCAL))), None, None),
    ("link-local", in_ipv4(inner(link_local(PEER), link_local(LOCAL))), None, None),
    ("another's address", in_ipv4(inner(on_link(PEER), on_link(LOCAL)), "10.0.0.3"),
     "inner-source-spoofed", "inner-source-spoofed"),
    ("from outside", in_ipv4(inner(OUTSIDE, on_link(LOCAL))), "inner-source-unauthorized", "inner-source-spoofed"),
    ("from outside by the router", in_ipv4(inner(OUTSIDE, on_link(LOCAL)), ROUTER), None, None),
    ("a router advertisement", in_ipv4(ADVERTISEMENT, ROUTER), None, None),
    ("the same to all nodes", in_ipv4(inner(link_local(ROUTER), "ff02::1", ICMPv6ND_RA(), hlim=255), ROUTER), None, None),
    ("the same by a host", in_ipv4(ADVERTISEMENT), "inner-source-spoofed", "inner-source-spoofed"),
    ("a host's own advertisement", in_ipv4(inner(link_local(PEER), link_local(LOCAL), ICMPv6ND_RA(), hlim=255)),
     "inner-source-unauthorized", "inner-source-unauthorized"),
    ("to another host", in_ipv4(inner(on_link(PEER), on_link("10.0.0.3"))), "inner-destination-foreign", None),
    ("IPv6 in IPv6", in_ipv4(inner(on_link(PEER), on_link(LOCAL), IPv6() / Raw(b"nested"))), "nested-tunnel", None),
]  # fmt: skip


@pytest.mark.parametrize("row", DOWNLINK, ids=[row[0] for row in DOWNLINK])
@pytest.mark.parametrize("level", ["strict", "sit"])
def test_downlink(host_with, level, row):
    _, packet, strict, sit = row
    reason = strict if level == "strict" else sit
    seen = host_with(f"--source-check {level}").observe(from_wire=[packet])
    if reason:
        assert seen.counters == {f"downlink.{reason}": 1} and not seen.to_host, show(seen.to_host)
    else:
        assert seen.to_host == [bytes(packet.payload)], show(seen.to_host)


#: (source, destination, the IPv4 destination or the reason to drop it)
UPLINK = [
    (on_link(LOCAL), on_link(PEER), PEER),
    (on_link(LOCAL), "2001:db8:5e::200:5efe:192.0.2.7", "192.0.2.7"),
    (link_local(LOCAL), link_local(ROUTER), ROUTER),
    (on_link(LOCAL), OUTSIDE, ROUTER),
    (on_link(LOCAL), "2001:db8:5f::5efe:10.0.0.2", ROUTER),
    (on_link(LOCAL), on_link("224.0.0.1"), "martian-destination"),
    (on_link(LOCAL), on_link("10.255.255.255"), "martian-destination"),
    (link_local(LOCAL), "ff02::2", "multicast-destination"),
    (link_local(LOCAL), "fe80::1", "link-local-destination"),
    (on_link("10.0.0.3"), on_link(PEER), "foreign-source"),
]


@pytest.mark.parametrize("source, destination, result", UPLINK)
def test_uplink(host_with, source, destination, result):
    packet = inner(source, destination)
    seen = host_with("--source-check strict").observe(from_host=[packet])
    if "." in result:
        [outer] = map(IP, seen.to_wire)
        assert (outer.src, outer.dst) == (LOCAL, result) and bytes(outer.payload) == bytes(packet)
    else:
        assert seen.counters == {f"uplink.{result}": 1} and not seen.to_wire, show(seen.to_wire)


def test_the_u_bit_of_a_unique_address(lab):
    host = HostOnAWire(lab, "--isatap", address="11.0.0.1/8", here="fe80::200:5efe:b00:1", there="fe80::200:5efe:a00:2")
    host.settle()
