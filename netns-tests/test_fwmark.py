"""--fwmark: the underlay packets follow the routing rules for their mark, and so does what tund asks the kernel for.

    eth0 10.0.0.1/8      the main table's way to everybody
    eth1 192.168.7.1/24  the way for mark 7: table 100, with a path MTU of 1350
"""

import json
import socket

import pytest

from packets import IP, inner

REMOTE = "10.0.0.2"


@pytest.fixture
def host(lab):
    made, far = lab.namespace("host"), lab.namespace("far")
    wires = {}
    for name in ("eth0", "eth1"):
        lab.veth(made, name, far, name)
        made.sysctl(**{f"ipv6__conf__{name}__disable_ipv6": 1})
        wires[name] = lab.packet_socket(far, name)
    made.ip("addr add 10.0.0.1/8 dev eth0", "addr add 192.168.7.1/24 dev eth1", "link set eth0 arp off", "link set eth1 arp off",
            "rule add fwmark 7 lookup 100", "route add 10.0.0.0/8 dev eth1 src 192.168.7.1 mtu 1350 table 100")  # fmt: skip
    return made, wires


WAYS = [("", "eth0", "10.0.0.1", 1480), ("--fwmark 7", "eth1", "192.168.7.1", 1330), ("--fwmark 0x7", "eth1", "192.168.7.1", 1330),
        ("--fwmark 8", "eth0", "10.0.0.1", 1480)]  # fmt: skip


@pytest.mark.parametrize("option, device, local, mtu", WAYS, ids=[row[0] or "unmarked" for row in WAYS])
def test_way_out(lab, host, option, device, local, mtu):
    """The local address and the MTU are found by the same rules that the packets then follow."""
    host, wires = host
    lab.tund(host, f"--remote {REMOTE} --address 2001:db8::1/64 --workers 1 {option}")
    [shown] = json.loads(host.show("-j link show dev tund0"))
    assert shown["mtu"] == mtu
    packet = inner("2001:db8::1", "2001:db8::2")
    lab.packet_socket(host, "tund0").send(packet)
    _, seen = wires[device].receive_until(lambda seen: seen[9] == 41 and seen.endswith(bytes(packet)))
    assert seen, f"nothing on {device}"
    assert (IP(seen).src, IP(seen).dst) == (local, REMOTE)
    others = [packet for name, wire in wires.items() if name != device for packet in wire.drain() if packet[9] == 41]
    assert not others


def test_netfilter_sees_the_mark(lab, host):
    host, wires = host
    host.run(["nft", "add table ip marked; add chain ip marked out { type filter hook output priority 0; };"
                     " add rule ip marked out ip protocol 41 meta mark 8 counter"])
    lab.tund(host, f"--remote {REMOTE} --address 2001:db8::1/64 --fwmark 8")
    packet = inner("2001:db8::1", "2001:db8::2")
    lab.packet_socket(host, "tund0").send(packet)
    assert wires["eth0"].receive_until(lambda seen: seen.endswith(bytes(packet)))[1]
    assert "counter packets 0" not in host.run("nft list table ip marked").stdout


def test_a_mark_inside_stays_inside_and_a_rule_marks_by_dscp(lab, host):
    """A TUN hands over bytes, without the mark that they had. What crosses is the DSCP, and netfilter can mark by that; the packet is
    routed anew then."""
    host, wires = host
    lab.tund(host, f"--remote {REMOTE} --address 2001:db8::1/64 --workers 1")
    sender = host.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 46 << 2)
    sender.sendto(b"unmarked", ("2001:db8::2", 9))
    assert wires["eth0"].receive_until(lambda seen: seen.endswith(b"unmarked"))[1]
    host.run(["nft", "add table ip t; add chain ip t out { type route hook output priority mangle; };"
                     " add rule ip t out ip protocol 41 ip dscp ef meta mark set 7"])
    sender.sendto(b"marked", ("2001:db8::2", 9))
    assert wires["eth1"].receive_until(lambda seen: seen.endswith(b"marked"))[1]
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0)
    sender.sendto(b"plain", ("2001:db8::2", 9))
    assert wires["eth0"].receive_until(lambda seen: seen.endswith(b"plain"))[1]
