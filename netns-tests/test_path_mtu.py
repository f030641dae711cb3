"""A narrow link in the middle of the underlay, which neither host can see.

    a 10.1.0.2 --1500-- router 10.1.0.1 == 1300 == router 10.2.0.1 --1500-- b 10.2.0.2
      tund0 1480                                                            tund0 1480

The routers answer with ICMPv4 fragmentation needed. Whatever tund makes of it, packets that IPv6 may send get through.
"""

import pytest

import traffic
from packets import DOMAIN

A, B = "fd12:3456:7801:2::1", "fd12:3456:7802:2::1"


@pytest.fixture(scope="module")
def hosts(shared_lab):
    """(a, b)"""
    a, router1, router2, b = (shared_lab.namespace(name) for name in ("a", "router1", "router2", "b"))
    shared_lab.veth(a, "eth0", router1, "near")
    shared_lab.veth(router1, "far", router2, "far", mtu=1300)
    shared_lab.veth(router2, "near", b, "eth0")
    for host, router, number in ((a, router1, 1), (b, router2, 2)):
        host.ip(f"addr add 10.{number}.0.2/16 dev eth0", f"route add default via 10.{number}.0.1")
        router.ip(f"addr add 10.{number}.0.1/16 dev near", f"addr add 172.16.0.{number}/24 dev far",
                  f"route add default via 172.16.0.{3 - number}")
        router.sysctl(ipv4__ip_forward=1)
        shared_lab.tund(host, DOMAIN)
    return a, b


@pytest.fixture(params=["a to b", "b to a"])
def direction(hosts, request):
    a, b = hosts
    return (a, b, B) if request.param == "a to b" else (b, a, A)


@pytest.mark.parametrize("length", [1280, 1281, 1400, 1480, 4000])
def test_ping(direction, length):
    """The first ones may be lost while the path is found out."""
    sender, _, address = direction
    attempts = [sender.ping(address, size=length - 48, options="-W 1") for _ in range(4)]
    assert attempts[-1], attempts


def test_tcp(direction):
    assert traffic.tcp(*direction)
