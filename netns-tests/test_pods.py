"""Pods: namespaces behind the hosts, each with an address of its host's prefix. Nobody tells the other host.

    pod-a                       pod-b
    fd12:3456:7800:1::100       fd12:3456:7800:2::100
      | (1500)                    |
    host-a, forwarding          host-b, forwarding
    tund0 (1480)                tund0
    eth0 10.0.0.1 -- switch --- eth0 10.0.0.2
"""

import re
import time

import pytest

import traffic
from packets import DOMAIN

POD_A, POD_B = "fd12:3456:7800:1::100", "fd12:3456:7800:2::100"
NOBODY = "fd12:3456:7800:2::dead"


@pytest.fixture(scope="module")
def site(shared_lab):
    """(pod-a, pod-b, host-a, host-b, tund of a, tund of b)"""
    hosts = shared_lab.underlay({"host-a": "10.0.0.1/8", "host-b": "10.0.0.2/8"})
    pods = []
    for host, address in zip(hosts, (POD_A, POD_B)):
        pod = shared_lab.namespace("pod")
        shared_lab.veth(host, "pod", pod, "eth0")
        host.sysctl(ipv6__conf__all__forwarding=1)
        host.ip("addr add fe80::1/64 dev pod nodad", f"route add {address}/128 dev pod")
        pod.ip(f"addr add {address}/128 dev eth0 nodad", "route add default via fe80::1 dev eth0")
        pods.append(pod)
    return *pods, *hosts, *(shared_lab.tund(host, DOMAIN) for host in hosts)


@pytest.fixture(params=["a to b", "b to a"])
def direction(site, request):
    pod_a, pod_b, *_ = site
    return (pod_a, pod_b, POD_B) if request.param == "a to b" else (pod_b, pod_a, POD_A)


def test_pod_to_pod(direction):
    """TCP starts with segments for 1500 bytes: the host's kernel says Packet Too Big, and the stream goes on."""
    sender, receiver, address = direction
    assert sender.ping(address, count=3)
    assert traffic.tcp(sender, receiver, address)
    assert traffic.udp(sender, receiver, address, count=100)


def test_pod_to_the_other_host_and_back(site):
    pod_a, _, _, host_b, *_ = site
    assert pod_a.ping("fd12:3456:7800:2::1") and host_b.ping(POD_A)


def test_hop_limit_is_spent_by_the_hosts_only(site):
    """Two hosts forward; the tunnel itself is no hop: 3 is enough, and with 2 the far host is the last to answer."""
    pod_a, *_ = site
    assert pod_a.ping(POD_B, options="-t 3")
    answer = pod_a.run(f"ping -6 -n -c 1 -W 3 -t 2 {POD_B}", check=False).stdout
    assert re.search(r"From fd12:3456:7800:2::1 .*Time exceeded", answer), answer


def test_an_address_nobody_has_is_unreachable_at_once(site):
    """The far host's unreachable route answers. One packet goes there and one error comes back: no loop."""
    pod_a, _, _, _, tund_a, tund_b = site
    before = tund_a.quiet_counters(), tund_b.quiet_counters()
    started = time.monotonic()
    answer = pod_a.run(f"ping -6 -n -c 1 -W 10 {NOBODY}", check=False)
    assert answer.returncode == 1 and time.monotonic() - started < 5
    assert re.search(r"From fd12:3456:7800:2::1 .*Destination unreachable", answer.stdout), answer.stdout
    for tund, earlier in zip((tund_a, tund_b), before):
        rise = tund.counters() - earlier
        assert (rise["uplink.packets"], rise["downlink.packets"]) == (1, 1)


@pytest.mark.parametrize("destination", ["fd12:3456:7800:1::dead"])
def test_an_address_of_ones_own_prefix_does_not_leave_the_host(site, destination):
    pod_a, *_, tund_a, _ = site
    before = tund_a.quiet_counters()["uplink.packets"]
    answer = pod_a.run(f"ping -6 -n -c 1 -W 10 {destination}", check=False)
    assert "Destination unreachable" in answer.stdout
    assert tund_a.counters()["uplink.packets"] == before
