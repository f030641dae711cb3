"""Counters and signals: what tund prints, and when it ends.

    a 10.0.0.1 ------ switch ------ b 10.0.0.2
"""

import re
import signal
import time

import pytest

from lab import STOP_WITHIN
from packets import HERE, in_ipv4, inner
from wire import HostOnAWire

COUNTERS = ["uplink.packets", "uplink.bytes", "downlink.packets", "downlink.bytes"]


@pytest.fixture
def pair(lab):
    a, b = lab.underlay({"a": "10.0.0.1/24", "b": "10.0.0.2/24"})
    return a, lab.tund(a), lab.tund(b)


def test_a_ping_counts_as_its_ipv6_packet_at_both_ends(pair):
    """Five echo requests of 40 + 8 + 56 bytes and their replies, and no byte of the outer headers."""
    a, *tunnels = pair
    before = [tund.counters() for tund in tunnels]
    assert a.ping("2002:a00:2::1", count=5, size=56)
    for tund, earlier in zip(tunnels, before, strict=True):
        rise = tund.counters() - earlier
        del rise["uplink.multicast-destination"]  # the kernel's own reports, at times of its choice
        assert rise == dict(zip(COUNTERS, [5, 520, 5, 520]))


def test_the_format(pair):
    """One value per line: `counter` lines always and all four, `drop` and `error` lines only when not zero."""
    a, tund, _ = pair
    a.ping("2002:a00:2::1")
    tund.counters()
    tund.stop()
    line = re.compile(r"(counter (?P<counter>[a-z.]+) \d+"
                      r"|drop (up|down)link\.[a-z0-9-]+ [1-9]\d* # .+"
                      r"|error [a-z-]+\.E[A-Z0-9]+ [1-9]\d* # .+"
                      r"|sit [a-z_]+ \d+)")
    matches = [line.fullmatch(text) for text in tund.out]
    assert all(matches), tund.transcript()
    counters = [match["counter"] for match in matches if match["counter"]]
    assert counters == COUNTERS * 3, "two blocks on demand and the last one"


def test_sit_names(lab):
    """What a sit interface would count, each packet where sit counts it; the addresses of these are nobody's or spoofed."""
    host = HostOnAWire(lab)
    before = host.tund.sit_counters()
    host.observe(
        from_wire=[in_ipv4(inner(tc=0), tos=3), in_ipv4(inner(source="fd12:3456:7800:3::1"))],
        from_host=[inner(HERE, "2001:db8::1"), inner(HERE, "fd12:3456:78ff:ffff::1")])
    after = host.tund.sit_counters()
    rise = {name: after[name] - before[name] for name in after}
    assert rise == {"rx_packets": 1, "rx_bytes": 64, "rx_errors": 2, "rx_frame_errors": 1, "tx_packets": 1, "tx_bytes": 64,
                    "tx_errors": 2, "tx_dropped": 0, "tx_carrier_errors": 1, "collisions": 0}, rise  # fmt: skip


def test_an_unreachable_host_is_a_carrier_error(pair):
    a, tund, _ = pair
    a.ip("route add unreachable 10.0.0.9")
    a.ping("2002:a00:9::1", options="-W 1")
    tund.counters_once(lambda counters: counters["underlay-send.EHOSTUNREACH"])
    sit = tund.sit_counters()
    assert sit["tx_carrier_errors"] == 1 and sit["tx_errors"] >= 1


def test_sigusr1_goes_on(pair):
    a, tund, _ = pair
    for _ in range(3):
        before = tund.counters()["uplink.packets"]
        assert a.ping("2002:a00:2::1")
        assert tund.counters()["uplink.packets"] == before + 1


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT], ids=lambda by: by.name)
def test_ends_at_once_and_leaves_nothing(pair, by):
    a, tund, _ = pair
    assert a.ping("2002:a00:2::1")
    final = tund.stop(by)
    assert final["uplink.packets"] == 1 and final["downlink.packets"] == 1
    within = time.monotonic() + STOP_WITHIN
    while "tund0" in a.show("link show"):
        assert time.monotonic() < within, "the interface stays"


def test_ends_at_once_under_load(pair, lab):
    a, tund, _ = pair
    flood = lab.process(a, "ping -6 -q -f -w 30 2002:a00:2::1")
    while tund.counters()["uplink.packets"] < 500:
        assert flood.running, flood.transcript()
    tund.stop()
