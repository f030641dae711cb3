"""Out of the domain through a border relay, and back in.

    a 10.0.0.1 ---+                                           outside
    b 10.0.0.2 ---+--- switch --- relay 10.0.0.254             plain IPv6, no tunnel
                                  tund0 --border-relay
                                  lan 2001:db8:1::1 --------- eth0 2001:db8:1::2

Then one host on a wire that spreads its flows over two relays.
"""

from collections import defaultdict

import pytest

import traffic
from packets import DOMAIN, HERE, IP, UDP, Raw, inner
from wire import HostOnAWire

A, B = "fd12:3456:7800:1::1", "fd12:3456:7800:2::1"
OUTSIDE = "2001:db8:1::2"


@pytest.fixture(scope="module")
def site(shared_lab):
    """(a, b, relay, outside, the relay's tund)"""
    a, b, relay = shared_lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8", "relay": "10.0.0.254/8"})
    outside = shared_lab.outside(relay, "2001:db8:1::1", OUTSIDE)
    for host in (a, b):
        shared_lab.tund(host, f"{DOMAIN} --relay 10.0.0.254 --default-route")
    tund = shared_lab.tund(relay, f"{DOMAIN} --border-relay")
    return a, b, relay, outside, tund


@pytest.fixture(params=["a to outside", "outside to a", "b to outside", "outside to b"])
def direction(site, request):
    a, b, _, outside, _ = site
    return {
        "a to outside": (a, outside, OUTSIDE),
        "outside to a": (outside, a, A),
        "b to outside": (b, outside, OUTSIDE),
        "outside to b": (outside, b, B),
    }[request.param]


def test_ping(direction):
    sender, _, address = direction
    assert sender.ping(address, count=3)


def test_tcp(direction):
    """The wire behind the relay takes 1500 bytes and the tunnel 1480: the relay's kernel tells the outside host."""
    assert traffic.tcp(*direction)


def test_udp(direction):
    assert traffic.udp(*direction, count=100)


def test_the_relay_is_a_host_of_the_domain_too(site):
    a, _, relay, _, _ = site
    assert a.ping("fd12:3456:7800:fe::1") and relay.ping(A)


def test_inside_the_domain_nothing_passes_the_relay(site):
    a, b, _, _, tund = site
    before = tund.quiet_counters()
    assert a.ping(B, count=5) and b.ping(A, count=5)
    after = tund.counters()
    assert after["downlink.packets"] == before["downlink.packets"]
    assert after["uplink.packets"] == before["uplink.packets"]


def test_flows_spread_over_two_relays(lab):
    """Each of 64 flows stays with one relay, and both relays get some: all 64 on one side would be chance 1 in 2^63."""
    host = HostOnAWire(lab, f"{DOMAIN} --relay 10.0.0.253 --relay 10.0.0.254 --default-route")
    packets = [
        inner(HERE, OUTSIDE, UDP(sport=40000 + flow, dport=53) / Raw(b"%d" % number))
        for number in range(4) for flow in range(64)
    ]  # fmt: skip
    seen = host.observe(from_host=packets)
    assert seen.counters["uplink.packets"] == len(packets)
    relays = defaultdict(set)
    for packet in map(IP, seen.to_wire):
        relays[packet[UDP].sport].add(packet.dst)
    assert all(len(chosen) == 1 for chosen in relays.values()), "a flow changed its relay"
    assert set.union(*relays.values()) == {"10.0.0.253", "10.0.0.254"}
