"""--source-check: what `sit` and `off` let through that `strict`, the default, drops (test_downlink_drops.py, test_uplink_drops.py).

    far end (no tund) ------ eth0 10.0.0.1 host, tund0 fd12:3456:7800:1::1
"""

import pytest

from packets import DOMAIN, HERE, IP, LOCAL, PEER, THERE, IPv6, Raw, in_ipv4, inner
from wire import HostOnAWire, show

OTHER, OTHERS = "10.0.0.3", "fd12:3456:7800:3::1"
OUTSIDE, ELSEWHERE = "2001:db8:99::1", "2001:db8:77::1"


@pytest.fixture(scope="module")
def host_with(one_at_a_time):
    return one_at_a_time(lambda lab, options: HostOnAWire(lab, f"{DOMAIN} {options}"))


#: (what, the outer packet, the reason to drop it by strict, sit and off)
DOWNLINK = [
    ("from the embedded host", in_ipv4(), None, None, None),
    ("from another than the embedded host", in_ipv4(inner(OTHERS)), "inner-source-spoofed", "inner-source-spoofed", None),
    ("our own source", in_ipv4(inner(HERE)), "inner-source-spoofed", "inner-source-spoofed", None),
    ("to another host of the domain", in_ipv4(inner(THERE, OTHERS)),
     "inner-destination-foreign", "inner-destination-foreign", None),
    ("from outside to another host of the domain", in_ipv4(inner(OUTSIDE, OTHERS)),
     "inner-source-unauthorized", "inner-destination-foreign", None),
    ("from outside", in_ipv4(inner(OUTSIDE)), "inner-source-unauthorized", None, None),
    ("from outside to outside", in_ipv4(inner(OUTSIDE, ELSEWHERE)), "inner-source-unauthorized", None, None),
    ("to outside", in_ipv4(inner(THERE, OUTSIDE)), "inner-destination-foreign", None, None),
    ("IPv4-mapped", in_ipv4(inner("::ffff:10.0.0.2")), "inner-source-invalid", None, None),
    ("link-local", in_ipv4(inner("fe80::2", "fe80::1")), "inner-source-invalid", None, None),
    ("to a group", in_ipv4(inner(THERE, "ff02::1")), "inner-destination-invalid", None, None),
    ("from beyond R/m", in_ipv4(inner(OUTSIDE), "192.0.2.7"), "outer-source-unknown", None, None),
    ("nested", in_ipv4(IPv6(src=THERE, dst=HERE) / IPv6() / Raw(b"nested")), "nested-tunnel", None, None),
    ("not IPv6", in_ipv4(IP(src=PEER, dst=LOCAL) / Raw(bytes(40))), "not-ipv6", "not-ipv6", "not-ipv6"),
    ("truncated", in_ipv4(inner(plen=999)), "truncated", "truncated", "truncated"),
    ("CE on Not-ECT", in_ipv4(tos=3), "ecn", "ecn", "ecn"),
]  # fmt: skip

LEVELS = ["strict", "sit", "off"]


@pytest.mark.parametrize("row", DOWNLINK, ids=[row[0] for row in DOWNLINK])
@pytest.mark.parametrize("level", LEVELS)
def test_downlink(host_with, level, row):
    _, packet, *reasons = row
    reason = reasons[LEVELS.index(level)]
    seen = host_with(f"--source-check {level}").observe(from_wire=[packet])
    if reason:
        assert seen.counters == {f"downlink.{reason}": 1} and not seen.to_host, show(seen.to_host)
    else:
        assert seen.to_host == [bytes(packet.payload)], show(seen.to_host)


def test_a_translated_destination(host_with):
    """sit's `only_dnatted`: the outer destination is not the embedded one, but the inner one is in a prefix of the interface."""
    to_us, beside_us = inner(THERE, "fd12:3456:7800:9::7"), inner(THERE, "fd12:3456:7800:8::7")
    address = "--address fd12:3456:7800:9::1/40"
    host = host_with(f"--source-check sit {address}")
    host.host.ip(f"addr add {HERE}/128 dev tund0 nodad")
    seen = host.observe(from_wire=[in_ipv4(to_us), in_ipv4(beside_us)])
    assert seen.to_host == [bytes(to_us)] and seen.counters["downlink.inner-destination-foreign"] == 1


#: (what, the inner packet, the IPv4 destination or the reason to drop it by strict, and by the others)
UPLINK = [
    ("to the embedded host", inner(HERE, THERE), PEER, PEER),
    ("a source outside", inner(OUTSIDE, THERE), "foreign-source", PEER),
    ("another's source", inner(OTHERS, THERE), "foreign-source", PEER),
    ("nested", IPv6(src=HERE, dst=THERE) / IPv6() / Raw(b"nested"), "nested-tunnel", PEER),
    ("outside", inner(HERE, OUTSIDE), "no-route", "no-route"),
    ("a group", inner(HERE, "ff0e::1"), "multicast-destination", "multicast-destination"),
]


@pytest.mark.parametrize("row", UPLINK, ids=[row[0] for row in UPLINK])
@pytest.mark.parametrize("level", LEVELS)
def test_uplink(host_with, level, row):
    _, packet, *results = row
    result = results[0 if level == "strict" else 1]
    seen = host_with(f"--source-check {level}").observe(from_host=[packet])
    if result == PEER:
        [outer] = map(IP, seen.to_wire)
        assert outer.dst == PEER and bytes(outer.payload) == bytes(packet)
    else:
        assert seen.counters == {f"uplink.{result}": 1} and not seen.to_wire, show(seen.to_wire)


#: {embedded IPv4 address: the levels at which a packet to it leaves the host 10.0.0.1/8}. Like sit, a raw socket sends where the
#: kernel has a unicast route to, and that is a default route for 0/8 and 240/4, too.
EMBEDDED = {
    "10.0.0.9": LEVELS, "11.0.0.9": LEVELS, "0.1.2.3": ["sit", "off"], "240.0.0.1": ["sit", "off"], "0.0.0.0": [],
    "10.255.255.255": [], "255.255.255.255": [], "127.0.0.1": [], "224.0.0.1": [], "239.1.2.3": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def host_6to4(one_at_a_time):
    where = {"here": "2002:a00:1::1", "there": "2002:a00:2::1"}
    return one_at_a_time(lambda lab, level: HostOnAWire(lab, f"--source-check {level}", **where))


@pytest.mark.parametrize("embedded", EMBEDDED)
@pytest.mark.parametrize("level", LEVELS)
def test_what_is_no_unicast_route_never_leaves(host_6to4, level, embedded):
    a, b, c, d = map(int, embedded.split("."))
    packet = inner("2002:a00:1::1", f"2002:{a << 8 | b:x}:{c << 8 | d:x}::1")
    seen = host_6to4(level).observe(from_host=[packet])
    assert [IP(sent).dst for sent in seen.to_wire] == ([embedded] if level in EMBEDDED[embedded] else []), show(seen.to_wire)


@pytest.mark.parametrize("level", LEVELS)
def test_point_to_point_only_the_remote_is_heard(lab, level):
    host = HostOnAWire(lab, f"--remote {PEER} --source-check {level}", here="fe80::a00:1", there="fe80::a00:2")
    # By tund: the kernel shows it no other host's packets.
    seen = host.observe(from_wire=[in_ipv4(inner(OUTSIDE), OTHER)])
    assert not seen.counters and not seen.to_host and not seen.to_wire
