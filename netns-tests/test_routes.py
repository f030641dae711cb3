"""Networks behind hosts: --local-prefix on the host that owns one, --route PREFIX=A on those who want to reach it.

    a 10.0.0.1                      b 10.0.0.2                   c 10.0.0.3
    owns 2001:db8:a::/48            owns 2001:db8::/32           routes to both, owns neither
    lo 2001:db8:a::1                lo 2001:db8:b::1
         |                               |                            |
         +----------- switch ------------+----------------------------+

c's two routes overlap: for 2001:db8:a:: the longer one, to a, wins.
"""

import pytest

import traffic
from packets import DOMAIN, HERE, IP, PEER, THERE, inner
from wire import HostOnAWire

A, B, C = "2001:db8:a::1", "2001:db8:b::1", "fd12:3456:7800:3::1"


@pytest.fixture(scope="module")
def hosts(shared_lab):
    """{name: (host, its tund)}"""
    a, b, c = shared_lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8", "c": "10.0.0.3/8"})
    tunnels = (
        shared_lab.tund(a, f"{DOMAIN} --local-prefix 2001:db8:a::/48"),
        shared_lab.tund(b, f"{DOMAIN} --local-prefix 2001:db8::/32"),
        shared_lab.tund(c, f"{DOMAIN} --route 2001:db8::/32=10.0.0.2 --route 2001:db8:a::/48=10.0.0.1"),
    )
    a.ip(f"addr add {A}/128 dev lo")
    b.ip(f"addr add {B}/128 dev lo")
    return dict(zip("abc", zip((a, b, c), tunnels)))


PAIRS = [("c", "a", C, A), ("a", "c", A, C), ("c", "b", C, B), ("b", "c", B, C)]


@pytest.mark.parametrize("sender, receiver, source, destination", PAIRS, ids=[f"{s} to {r}" for s, r, *_ in PAIRS])
def test_reaches(hosts, sender, receiver, source, destination):
    """The owner speaks from its prefix; c takes that from nobody else."""
    (host, _), (peer, _) = hosts[sender], hosts[receiver]
    assert host.ping(destination, options=f"-I {source}")
    assert traffic.udp(host, peer, destination, source=source, count=100)


@pytest.mark.parametrize("destination, owner, other", [(A, "a", "b"), (B, "b", "a")], ids=["/48 before /32", "/32"])
def test_only_the_owner_gets_the_packets(hosts, destination, owner, other):
    before = {name: tund.quiet_counters()["downlink.packets"] for name, (_, tund) in hosts.items()}
    assert hosts["c"][0].ping(destination, count=3)
    after = {name: tund.counters()["downlink.packets"] for name, (_, tund) in hosts.items()}
    assert after[owner] - before[owner] == 3 and after[other] == before[other]


def test_tcp_to_a_network_behind_a_host(hosts):
    assert traffic.tcp(hosts["c"][0], hosts["a"][0], A)


#: Destination, and the host that gets it, whatever the order of the options.
LONGEST = [
    ("2001:db8:1:2::9", "10.0.0.68"),
    ("2001:db8:1:2::3", "10.0.0.132"),
    ("2001:db8:1:3::1", "10.0.0.52"),
    ("2001:db8:2::1", "10.0.0.36"),
    ("2001:dc8::1", "10.0.0.4"),
    ("fd00::1", "10.0.0.4"),
]
ROUTES = [
    "--route ::/0=10.0.0.4", "--route 2001:db8::/32=10.0.0.36", "--route 2001:db8:1::/48=10.0.0.52",
    "--route 2001:db8:1:2::/64=10.0.0.68", "--route 2001:db8:1:2::3/128=10.0.0.132",
]  # fmt: skip


@pytest.mark.parametrize("order", [1, -1], ids=["shortest first", "longest first"])
def test_longest_prefix_wins(lab, order):
    host = HostOnAWire(lab, " ".join([DOMAIN, *ROUTES[::order]]))
    for destination, expected in LONGEST:
        seen = host.observe(from_host=[inner(HERE, destination)])
        assert [IP(packet).dst for packet in seen.to_wire] == [expected], destination


#: A route, and the host that gets fd12:3456:7800:2::1 from then on. The domain counts with its own length, /40.
IN_THE_DOMAIN = [
    ("::/0", PEER),
    ("fd12:3456::/32", PEER),
    ("fd12:3456:7800:2::/64", "10.0.0.9"),
]


@pytest.mark.parametrize("route, expected", IN_THE_DOMAIN)
def test_a_route_beside_the_domain(lab, route, expected):
    host = HostOnAWire(lab, f"{DOMAIN} --route {route}=10.0.0.9", there="fd12:3456:7800:3::1", peer="10.0.0.3")
    seen = host.observe(from_host=[inner(HERE, THERE)])
    assert [IP(packet).dst for packet in seen.to_wire] == [expected]
