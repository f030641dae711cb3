"""A tunnel between two hosts without a domain: --remote.

    a 10.0.0.1                              b 10.0.0.2
    tund0 fe80::a00:1/64                    tund0 fe80::a00:2/64
          2001:db8:a::1 on lo                     2001:db8:b::1 on lo
    eth0 ----------------- switch ----------------- eth0
"""

import socket
import time
from ipaddress import IPv4Address

import pytest

import traffic
from packets import inner

A, B = "2001:db8:a::1", "2001:db8:b::1"


@pytest.fixture(scope="module")
def hosts(shared_lab):
    a, b = shared_lab.underlay({"a": "10.0.0.1/24", "b": "10.0.0.2/24"})
    shared_lab.tund(a, "--remote 10.0.0.2 --default-route")
    shared_lab.tund(b, "--remote 10.0.0.1 --default-route")
    a.ip(f"addr add {A}/128 dev lo")
    b.ip(f"addr add {B}/128 dev lo")
    return a, b


@pytest.fixture(params=["a to b", "b to a"])
def direction(hosts, request):
    """(sender, receiver, the receiver's global and link-local address)"""
    a, b = hosts
    return (a, b, B, "fe80::a00:2") if request.param == "a to b" else (b, a, A, "fe80::a00:1")


def test_link_local(direction):
    sender, _, _, address = direction
    assert sender.ping(f"{address}%tund0", count=3)


def test_all_nodes(direction):
    """ff02::1 is answered by the host at the other end, from its link-local address. (-L: not by ourselves.)"""
    sender, _, _, address = direction
    answer = sender.run("ping -6 -n -L -c 1 -W 3 ff02::1%tund0", check=False)
    assert f"from {address}%tund0" in answer.stdout, answer.stdout


def test_any_inner_address(direction):
    sender, receiver, address, _ = direction
    assert sender.ping(address, count=3)
    assert traffic.tcp(sender, receiver, address)
    assert traffic.udp(sender, receiver, address, count=100)


STRANGER = "10.0.0.3"


def icmp_sent(host) -> int:
    """ICMPv4 messages that the host has sent."""
    fields = [line.split()[1:] for line in host.run("cat /proc/net/snmp").stdout.splitlines() if line.startswith("Icmp:")]
    return int(dict(zip(*fields))["OutMsgs"])


def raw_sockets(host, address: str) -> list[str]:
    """Of the protocol 41 sockets at an address that the kernel shows packets to, the remote address of each."""
    return [
        str(IPv4Address(bytes.fromhex(line.split()[2].split(":")[0])[::-1]))
        for line in host.run("cat /proc/net/raw").stdout.splitlines()
        if line.split()[1] == f"{bytes(IPv4Address(address).packed)[::-1].hex().upper()}:0029"
    ]


def test_other_hosts_hear_nothing(lab):
    """As long as one of the tunnels on the address is there, the kernel does not say that there is no such protocol. Their sockets
    see the remotes' packets only; a single one, of all the tunnels, sees all."""
    a, b = lab.underlay({"a": "10.0.0.1/24", "b": "10.0.0.2/24"})
    b.ip(*(f"addr add 10.0.0.{number}/24 dev eth0" for number in (3, 4, 5)))
    a.sysctl(ipv4__icmp_ratelimit=0)
    tunds = [lab.tund(a, f"--remote 10.0.0.{number} --workers 1", name=f"tund{number}") for number in (2, 4, 5)]
    stranger = b.socket(socket.AF_INET, socket.SOCK_RAW, 41)
    stranger.bind((STRANGER, 0))
    before = icmp_sent(a)

    def knock():
        for _ in range(10):
            stranger.sendto(bytes(inner()), ("10.0.0.1", 0))
        return icmp_sent(a) - before

    while tunds:
        deadline = time.monotonic() + 3
        while raw_sockets(a, "10.0.0.1").count("0.0.0.0") == 0:
            assert time.monotonic() < deadline, "within a second or so another one takes over"
            time.sleep(0.05)
        assert raw_sockets(a, "10.0.0.1").count("0.0.0.0") == 1
        assert knock() == 0
        before = icmp_sent(a)
        tunds.pop(0).stop()
    assert knock() > 0, "they would be heard"


@pytest.mark.parametrize("local", ["", "--local 10.0.0.1"], ids=["auto", "fixed"])
def test_the_sockets_are_connected(lab, local):
    """And where the address changes the tunnel goes on, with sockets that are bound only; there and back again."""
    a, b = lab.underlay({"a": "10.0.0.1/24", "b": "10.0.0.2/24"})
    tund = lab.tund(a, f"--remote 10.0.0.2 --workers 2 {local}")
    # Two receivers and the guardian; and the one that sees all.
    connected = ["0.0.0.0", "10.0.0.2", "10.0.0.2", "10.0.0.2"]
    assert sorted(raw_sockets(a, "10.0.0.1")) == connected
    far = lab.tund(b, "--remote 10.0.0.1")
    assert a.ping("fe80::a00:2%tund0")
    if local:
        return
    for old, new in ((1, 7), (7, 8), (8, 1)):
        far.stop()
        a.ip(f"addr del 10.0.0.{old}/24 dev eth0", f"addr add 10.0.0.{new}/24 dev eth0")
        tund.wait_until(lambda: any(f"renumbered from 10.0.0.{old} to 10.0.0.{new}" in line for line in tund.err), "renumbering")
        far = lab.tund(b, f"--remote 10.0.0.{new}")
        assert a.ping("fe80::a00:2%tund0") and b.ping(f"fe80::a00:{new}%tund0")
        assert sorted(raw_sockets(a, f"10.0.0.{new}")) == (connected if new == 1 else ["0.0.0.0"] * 4)
