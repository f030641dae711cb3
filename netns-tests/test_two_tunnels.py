"""Two tunnels on one host, each with a local address of its own, alive at the same time.

    left 10.0.0.2                host                     right 192.168.1.2
    tund0, domain fd12:..  ---   left  10.0.0.1           tund0, domain fd00:.. or point to point
                                 right 192.168.1.1  ---
                                 tund0 (left), tund1 (right)
"""

import pytest

import traffic
from packets import UDP, Raw, in_ipv4, inner

LEFT = "--6rd-prefix fd12:3456:7800::/40 --6rd-relay-prefix 10.0.0.0/8"
RIGHT = "--6rd-prefix fd00:db8:0:ab00::/56 --6rd-relay-prefix 192.168.1.0/24"


@pytest.fixture
def hosts(lab):
    """(host, left, right)"""
    host, left, right = (lab.namespace(name) for name in ("host", "left", "right"))
    lab.veth(host, "left", left, "eth0")
    lab.veth(host, "right", right, "eth0")
    host.ip("addr add 10.0.0.1/8 dev left", "addr add 192.168.1.1/24 dev right")
    left.ip("addr add 10.0.0.2/8 dev eth0")
    right.ip("addr add 192.168.1.2/24 dev eth0")
    return host, left, right


@pytest.fixture(params=["domain and domain", "domain and point to point"])
def tunnels(lab, hosts, request):
    """(peer, its address, the host's address, the host's tund) of each tunnel"""
    host, left, right = hosts
    lab.tund(left, LEFT)
    tund0 = lab.tund(host, f"--local 10.0.0.1 {LEFT}", name="tund0")
    if request.param == "domain and domain":
        near, far = "fd00:db8:0:ab01::1", "fd00:db8:0:ab02::1"
        here = there = RIGHT
    else:
        near, far = "2001:db8:77::1", "2001:db8:77::2"
        here, there = f"--remote 192.168.1.2 --address {near}/64", f"--remote 192.168.1.1 --address {far}/64"
    tund1 = lab.tund(host, f"--local 192.168.1.1 {here}", name="tund1")
    lab.tund(right, there)
    return (left, "fd12:3456:7800:2::1", "fd12:3456:7800:1::1", tund0), (right, far, near, tund1)


@pytest.mark.parametrize("side", [0, 1], ids=["left", "right"])
def test_both_ways(hosts, tunnels, side):
    host = hosts[0]
    peer, far, near, _ = tunnels[side]
    assert host.ping(far) and peer.ping(near)
    assert traffic.tcp(host, peer, far, size=1 << 20) and traffic.tcp(peer, host, near, size=1 << 20)
    assert traffic.udp(host, peer, far, count=100) and traffic.udp(peer, host, near, count=100)


def test_neither_hears_the_other(hosts, tunnels):
    """What belongs to one tunnel is not even a drop of the other one. (Reports about multicast groups, some in the first
    seconds, are the point-to-point tunnel's own.)"""
    host = hosts[0]
    (_, far0, _, tund0), (_, far1, _, tund1) = tunnels
    for far, own, other in ((far0, tund0, tund1), (far1, tund1, tund0)):
        before = own.counters(), other.counters()
        assert host.ping(far, count=20, options="-i 0.05")
        rise, others = (tund.counters() - earlier for tund, earlier in zip((own, other), before))
        assert rise["downlink.packets"] >= 20 and others["downlink.packets"] < 10
        assert {name for name in others if name.startswith("downlink")} <= {"downlink.packets", "downlink.bytes"}


def test_one_ends_and_the_other_goes_on(hosts, tunnels):
    host = hosts[0]
    (_, far0, _, tund0), (_, far1, _, _) = tunnels
    tund0.stop()
    assert host.ping(far1, count=2) and not host.ping(far0, options="-W 1")


def test_eight_tunnels_on_one_host(lab, hosts):
    """Each with its address, its domain and its two workers."""
    host, left, _ = hosts
    for number in range(8):
        here, there = f"10.{number}.0.1", f"10.{number}.0.2"
        domain = f"--6rd-prefix fd00:{number:x}::/32 --workers 2"
        for each, address, name in ((host, here, f"tund{number}"), (left, there, f"tund{number}")):
            each.ip(f"addr replace {address}/16 dev {'left' if each is host else 'eth0'}")
            lab.tund(each, f"--local {address} {domain}", name=name)
    for number in range(8):
        assert host.ping(f"fd00:{number:x}:{10 << 8 | number:x}:2::1"), number


@pytest.mark.parametrize("device, hears", [("left", True), ("right", False)])
def test_dev_binds_to_one_interface(lab, hosts, device, hears):
    """A packet for the tunnel's address that comes in by another interface than --dev is not its own."""
    host, left, _ = hosts
    tund = lab.tund(host, f"--local 10.0.0.1 --dev {device} {LEFT}")
    tun = lab.packet_socket(host, "tund0")
    mac = host.run("cat /sys/class/net/left/address").stdout.strip()
    packet = inner(payload=UDP(sport=1, dport=9) / Raw(b"hears"))
    lab.packet_socket(left, "eth0", mac).send(in_ipv4(packet))
    assert tun.receive(1, timeout=5 if hears else 0.5) == [bytes(packet)] * hears
    tund.counters_once(lambda counters: counters["downlink.packets"] == hears)
