"""The edge of the tunnel's MTU: 1480 bytes pass, for 1481 the host's own kernel answers.

    pod fd12:3456:7800:1::100 --- host-a 10.0.0.1 ------ host-b 10.0.0.2
        1500                      tund0 1480             tund0 1480
"""

import re

import pytest

from packets import DOMAIN

A, B = "fd12:3456:7800:1::1", "fd12:3456:7800:2::1"
POD = "fd12:3456:7800:1::100"


@pytest.fixture(scope="module")
def site(shared_lab):
    """(pod, host-a, host-b)"""
    a, b = shared_lab.underlay({"host-a": "10.0.0.1/8", "host-b": "10.0.0.2/8"})
    pod = shared_lab.namespace("pod")
    shared_lab.veth(a, "pod", pod, "eth0")
    a.sysctl(ipv6__conf__all__forwarding=1)
    a.ip("addr add fe80::1/64 dev pod nodad", f"route add {POD}/128 dev pod")
    pod.ip(f"addr add {POD}/128 dev eth0 nodad", "route add default via fe80::1 dev eth0")
    shared_lab.tund(a, DOMAIN), shared_lab.tund(b, DOMAIN)
    return pod, a, b


def ping_of(host, length: int, destination: str) -> str:
    """Two pings of `length` bytes with the IPv6 header, never fragmented."""
    command = f"ping -6 -n -M do -c 2 -i 0.2 -W 2 -s {length - 48} {destination}"
    done = host.run(command, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("length", [1279, 1280, 1281, 1479, 1480])
def test_up_to_the_mtu(site, length):
    pod, a, b = site
    assert ", 0% packet loss" in ping_of(a, length, B)
    assert ", 0% packet loss" in ping_of(b, length, A)
    assert ", 0% packet loss" in ping_of(pod, length, B)


@pytest.mark.parametrize("length", [1481, 1500])
def test_a_process_of_the_host_gets_emsgsize(site, length):
    _, a, _ = site
    assert re.search(r"[Mm]essage too long", ping_of(a, length, B))


@pytest.mark.parametrize("length", [1481, 1500])
def test_a_host_behind_gets_packet_too_big(site, length):
    pod, a, _ = site
    pod.run("ip -6 route flush cache")
    assert re.search(rf"From {A} .*Packet too big: mtu=1480", ping_of(pod, length, B))


def test_fragments_of_a_larger_datagram_pass(site):
    _, a, b = site
    assert a.ping(B, size=20000, count=2) and b.ping(A, size=20000, count=2)
