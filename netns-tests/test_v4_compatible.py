"""IPv4-compatible addresses, ::a.b.c.d: automatic tunneling to a.b.c.d, with --v4-compatible and wherever sit is imitated.

    a 10.0.0.1                              b 10.0.0.2
    tund0 ::10.0.0.1/96                     tund0 ::10.0.0.2/96
    eth0 ----------------- switch ----------------- eth0

Then one host on a wire.
"""

import pytest

import traffic
from packets import DOMAIN, HERE, IP, LOCAL, PEER, THERE, in_ipv4, inner
from wire import HostOnAWire, show

OUTSIDE = "2001:db8:99::1"


@pytest.mark.parametrize("options", ["--v4-compatible", "--source-check sit", "--source-check off"])
def test_two_hosts(lab, options):
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    for host in (a, b):
        lab.tund(host, f"{DOMAIN} {options}")
    assert a.ping("::10.0.0.2", count=3) and b.ping("::10.0.0.1")
    assert a.ping("fd12:3456:7800:2::1"), "the domain is there as ever"
    assert traffic.tcp(a, b, "::10.0.0.2")


@pytest.fixture(scope="module")
def host_with(one_at_a_time):
    return one_at_a_time(lambda lab, options: HostOnAWire(lab, f"{DOMAIN} {options}"))


#: (what, the outer packet, the reason to drop it)
DOWNLINK = [
    ("from ::10.0.0.2", in_ipv4(inner("::10.0.0.2", "::10.0.0.1")), None),
    ("to our prefix", in_ipv4(inner("::10.0.0.2", HERE)), None),
    ("from its prefix", in_ipv4(inner(THERE, "::10.0.0.1")), None),
    ("beyond R/m", in_ipv4(inner("::192.0.2.7", "::10.0.0.1"), "192.0.2.7"), None),
    ("another's address", in_ipv4(inner("::10.0.0.3", "::10.0.0.1")), "inner-source-spoofed"),
    ("our address", in_ipv4(inner("::10.0.0.1", "::10.0.0.1")), "inner-source-spoofed"),
    ("to another", in_ipv4(inner("::10.0.0.2", "::10.0.0.3")), "inner-destination-foreign"),
    ("from ::1", in_ipv4(inner("::1", "::10.0.0.1")), "inner-source-invalid"),
    ("from ::", in_ipv4(inner("::", "::10.0.0.1")), "inner-source-invalid"),
    ("to ::1", in_ipv4(inner(THERE, "::1")), "inner-destination-invalid"),
    ("IPv4-mapped", in_ipv4(inner("::ffff:10.0.0.2", "::10.0.0.1")), "inner-source-invalid"),
    ("outside the domain, from beyond R/m", in_ipv4(inner(OUTSIDE), "192.0.2.7"), "inner-source-unauthorized"),
    ("a host of the domain, from beyond R/m", in_ipv4(inner(), "192.0.2.7"), "inner-source-spoofed"),
]


@pytest.mark.parametrize("row", DOWNLINK, ids=[row[0] for row in DOWNLINK])
def test_downlink(host_with, row):
    _, packet, reason = row
    seen = host_with("--v4-compatible").observe(from_wire=[packet])
    if reason:
        assert seen.counters == {f"downlink.{reason}": 1} and not seen.to_host, show(seen.to_host)
    else:
        assert seen.to_host == [bytes(packet.payload)], show(seen.to_host)


#: (source, destination, the IPv4 destination or the reason to drop it)
UPLINK = [
    ("::10.0.0.1", "::10.0.0.2", PEER),
    (HERE, "::10.0.0.2", PEER),
    ("::10.0.0.1", THERE, PEER),
    ("::10.0.0.1", "::192.0.2.7", "192.0.2.7"),
    ("::10.0.0.9", "::10.0.0.2", "foreign-source"),
    ("::10.0.0.1", "::10.255.255.255", "martian-destination"),
    ("::10.0.0.1", "::127.0.0.1", "martian-destination"),
    ("::10.0.0.1", "::224.0.0.1", "martian-destination"),
    ("::10.0.0.1", "::0.0.0.9", "martian-destination"),
    ("::10.0.0.1", "::1", "no-route"),
    ("::10.0.0.1", "::10.0.0.1", "local-destination"),
]


@pytest.mark.parametrize("source, destination, result", UPLINK)
def test_uplink(host_with, source, destination, result):
    packet = inner(source, destination)
    seen = host_with("--v4-compatible").observe(from_host=[packet])
    if "." in result:
        [outer] = map(IP, seen.to_wire)
        assert (outer.src, outer.dst) == (LOCAL, result) and bytes(outer.payload) == bytes(packet)
    else:
        assert seen.counters == {f"uplink.{result}": 1} and not seen.to_wire, show(seen.to_wire)


def test_not_unless_asked_for(host_with):
    host = host_with("")
    seen = host.observe(from_host=[inner(HERE, "::10.0.0.2")], from_wire=[in_ipv4(inner("::10.0.0.2"))])
    assert seen.counters == {"uplink.no-route": 1, "downlink.inner-source-invalid": 1}
    assert "/96" not in host.host.show("-6 addr show dev tund0")
