"""A narrow link in the middle of the underlay, which neither host can see.

    a 10.1.0.2 --WIDE-- router 10.1.0.1 == NARROW == router 10.2.0.1 --WIDE-- b 10.2.0.2
      tund0 WIDE - 20                                                        tund0 WIDE - 20

The routers answer with ICMPv4 fragmentation needed; the hosts' kernels remember, and tund tells the inner sources.
The jumbo links are those of the kernel's own test (tools/testing/selftests/net/pmtu.sh): 4000 makes 3980.
"""

import re

import pytest

import traffic
from packets import DOMAIN

A, B = "fd12:3456:7801:2::1", "fd12:3456:7802:2::1"
POD = "fd12:3456:7801:2::100"

#: (WIDE, NARROW), and the IPv6 path MTU that follows.
PATHS = {(1500, 1400): 1380, (5000, 4000): 3980, (1500, 1300): 1280, (1500, 1280): 1280}


@pytest.fixture(scope="module")
def hosts_on(one_at_a_time):
    """(a, b, tund on a, a pod behind a)"""

    @one_at_a_time
    def hosts(lab, wide, narrow):
        a, router1, router2, b, pod = (lab.namespace(name) for name in ("a", "router1", "router2", "b", "pod"))
        lab.veth(a, "eth0", router1, "near", mtu=wide)
        lab.veth(router1, "far", router2, "far", mtu=narrow)
        lab.veth(router2, "near", b, "eth0", mtu=wide)
        tunds = []
        for host, router, number in ((a, router1, 1), (b, router2, 2)):
            host.ip(f"addr add 10.{number}.0.2/16 dev eth0", f"route add default via 10.{number}.0.1")
            router.ip(f"addr add 10.{number}.0.1/16 dev near", f"addr add 172.16.0.{number}/24 dev far",
                      f"route add default via 172.16.0.{3 - number}")
            router.sysctl(ipv4__ip_forward=1)
            tunds.append(lab.tund(host, DOMAIN))
        lab.veth(a, "pod", pod, "eth0", mtu=wide)
        a.sysctl(ipv6__conf__all__forwarding=1)
        a.ip("addr add fe80::1/64 dev pod nodad", f"route add {POD}/128 dev pod")
        pod.ip(f"addr add {POD}/128 dev eth0 nodad", "route add default via fe80::1 dev eth0")
        return a, b, tunds[0], pod

    return hosts


@pytest.fixture(params=PATHS, ids=lambda path: "%d-%d" % path)
def path(hosts_on, request):
    """(hosts, the path MTU of IPv6)"""
    return hosts_on(*request.param), PATHS[request.param]


def reaches(sender, address: str, length: int) -> bool:
    """Pings of this length get through, though the first ones are lost: two in each direction, until the kernel of the host has
    learnt the path, and then the source."""
    return any(sender.ping(address, size=length - 48, options="-W 1") for _ in range(5))


def test_the_sender_learns_it(path):
    (a, _, tund, _), mtu = path
    assert reaches(a, B, mtu)
    said = [a.run(f"ping -6 -n -M do -c 2 -i 0.2 -W 1 -s {mtu + 1 - 48} {B}", check=False) for _ in range(2)]
    assert re.search(rf"(mtu[=:] ?{mtu}\b)", said[-1].stdout + said[-1].stderr)
    assert f" mtu {mtu} " in a.show(f"-6 route get {B}") + " " or mtu == 1280
    counters = tund.counters()
    assert counters["answer.too-big"] >= 1 and counters["uplink.too-big"] >= 1
    assert reaches(a, B, mtu) and reaches(a, B, mtu + 1)


def test_a_host_behind_learns_it(path):
    (_, _, _, pod), mtu = path
    said = [pod.run(f"ping -6 -n -M do -c 2 -i 0.2 -W 1 -s {mtu + 1 - 48} {B}", check=False) for _ in range(2)]
    assert re.search(rf"From {A} .*Packet too big: mtu={mtu}\b", "".join(done.stdout for done in said))
    assert reaches(pod, B, mtu)


@pytest.mark.parametrize("length", [1280, 1281, 1400, 1480, 4000])
def test_ping(path, length):
    (a, b, _, _), _ = path
    assert reaches(a, B, length)
    assert reaches(b, A, length)


def test_tcp(path):
    """Super-packets, too: their segments are as long as the route said when the connection began."""
    (a, b, tund, pod), _ = path
    for host in (a, pod):
        host.run("ip -6 route flush cache")
    before = tund.counters()
    assert traffic.tcp(a, b, B)
    assert traffic.tcp(pod, b, B)
    assert traffic.tcp(b, a, A)
    rise = tund.counters() - before
    # One answer for a super-packet, however many of its segments are too long.
    assert rise["offload.split"] > 0 and 0 < rise["answer.too-big"] <= rise["uplink.too-big"]


def test_behind_a_tunnel_without_addresses(lab):
    """Point to point without --address only a link-local address is there to answer from, and the host forwards nothing that comes
    from one: the pod is told as if from where its packet was going."""
    host, router, pod = (lab.namespace(name) for name in ("host", "router", "pod"))
    lab.veth(host, "eth0", router, "near")
    host.ip("addr add 10.1.0.2/24 dev eth0", "route add default via 10.1.0.1 mtu lock 1400")
    router.ip("addr add 10.1.0.1/24 dev near")
    lab.tund(host, "--remote 10.2.0.2 --default-route --mtu 1480")
    lab.veth(host, "pod", pod, "eth0")
    host.sysctl(ipv6__conf__all__forwarding=1)
    host.ip("addr add fe80::1/64 dev pod nodad", f"route add {POD}/128 dev pod")
    pod.ip(f"addr add {POD}/128 dev eth0 nodad", "route add default via fe80::1 dev eth0")
    said = pod.run("ping -6 -n -M do -c 3 -i 0.2 -W 1 -s 1400 2001:db8::99", check=False)
    assert "From 2001:db8::99 " in said.stdout and "Packet too big: mtu=1380" in said.stdout, said.stdout
