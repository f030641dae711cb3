"""The laboratory itself, without tund: what the scenarios rest on.

    a eth0 ------ eth0 b
"""

from pathlib import Path

import pytest

import sixrd
import traffic
from lab import Lab, remove_leftovers, run
from packets import DOMAIN, HERE, LOCAL, PEER, PREFIX, RELAY_PREFIX, THERE, in_ipv4, inner, numbered


@pytest.fixture
def wired():
    """Two hosts and the packet socket at b's end of their wire."""
    with Lab() as lab:
        a, b = lab.namespace("a"), lab.namespace("b")
        lab.veth(a, "eth0", b, "eth0")
        mac = a.run("cat /sys/class/net/eth0/address").stdout.strip()
        yield a, b, lab.packet_socket(b, "eth0", mac), lab.packet_socket(a, "eth0")


def test_packets_arrive_whole_and_in_order(wired):
    _, _, far, near = wired
    sent = [bytes(in_ipv4(payload)) for payload in numbered(300, size=1400)]
    far.send(*sent)
    # b's own IPv6 may be between them.
    before, last = near.receive_until(lambda packet: packet == sent[-1])
    assert [packet for packet in [*before, last] if packet and packet[:1] == b"\x45"] == sent


def test_a_packet_socket_does_not_hear_itself(wired):
    _, _, far, _ = wired
    far.send(in_ipv4())
    assert bytes(in_ipv4()) not in far.receive(100, timeout=0.2)


def test_transfers_are_verified(wired):
    a, b, *_ = wired
    a.ip("addr add 2001:db8::1/64 dev eth0 nodad")
    b.ip("addr add 2001:db8::2/64 dev eth0 nodad")
    assert a.ping("2001:db8::2") and not a.ping("2001:db8::3", options="-W 1")
    assert traffic.tcp(a, b, "2001:db8::2", size=1 << 20)
    assert traffic.udp(b, a, "2001:db8::1", count=60)


def test_hosts_need_not_ask_for_each_other():
    with Lab() as lab:
        a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
        wire = lab.packet_socket(lab.namespaces[0], "to-a")
        for host, other in (a, "10.0.0.2"), (b, "10.0.0.1"):
            assert host.ping(other)
        arrived = wire.drain()
        assert any(packet[:1] == b"\x45" for packet in arrived)
        assert not any(packet.startswith(b"\x00\x01\x08\x00") for packet in arrived), "ARP: Ethernet, IPv4"


def test_a_lab_leaves_nothing():
    with Lab() as lab:
        name = lab.namespace("x").name
        sleeper = lab.process(lab.namespaces[0], "sleep 1000")
        assert Path("/run/netns", name).exists() and sleeper.running
    assert not Path("/run/netns", name).exists() and not sleeper.running


def test_leftovers_of_a_killed_run_are_removed():
    """The name carries the pid of its maker; no process has one above pid_max."""
    above = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    name = f"tund-{above}-1-x"
    run(["ip", "netns", "add", name])
    remove_leftovers()
    assert not Path("/run/netns", name).exists()


def test_the_domain_of_the_packets():
    assert DOMAIN == f"--6rd-prefix {PREFIX} --6rd-relay-prefix {RELAY_PREFIX}"
    for host, address in ((LOCAL, HERE), (PEER, THERE)):
        assert str(sixrd.own_address(PREFIX, RELAY_PREFIX, host)) == address
        assert str(sixrd.embedded(PREFIX, RELAY_PREFIX, address)) == host
    assert bytes(in_ipv4())[9] == 41 and bytes(in_ipv4())[20:] == bytes(inner())
