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


#: What machines have where containers, routers or hardening were set up: each is inherited by a new namespace.
ELSEWHERE = {
    "ipv4.ip_forward": "1", "ipv4.conf.default.forwarding": "1", "ipv4.conf.all.rp_filter": "1", "ipv4.conf.default.rp_filter": "2",
    "ipv4.conf.all.accept_redirects": "0", "ipv4.conf.default.accept_redirects": "0", "ipv4.conf.default.send_redirects": "0",
    "ipv4.conf.default.promote_secondaries": "1", "ipv4.conf.all.route_localnet": "1", "ipv4.conf.all.arp_ignore": "1",
    "ipv4.conf.all.arp_announce": "2", "ipv4.conf.default.accept_source_route": "0", "ipv4.conf.all.log_martians": "1",
    "ipv6.conf.all.forwarding": "1", "ipv6.conf.default.accept_ra": "0", "ipv6.conf.all.disable_ipv6": "1",
}  # fmt: skip


def test_a_host_has_the_kernels_settings_whatever_this_machine_has():
    """As in a namespace that inherited others: the same as in one that was left alone."""
    with Lab() as lab:
        fresh, other = lab.namespace("fresh"), lab.namespace("other")
        for setting, value in ELSEWHERE.items():
            other.sysctl(**{setting.replace(".", "__"): value})
        assert all(other.sysctl_value(setting.replace(".", "__")) == value for setting, value in ELSEWHERE.items())
        other.forget_settings()
        for directory in ("ipv4/conf/all", "ipv4/conf/default", "ipv4/conf/lo", "ipv6/conf/all", "ipv6/conf/default"):
            values = [settings(host, directory) for host in (fresh, other)]
            assert values[0] == values[1], directory
        lab.veth(fresh, "eth0", other, "eth0")
        assert settings(fresh, "ipv4/conf/eth0") == settings(other, "ipv4/conf/eth0")
        assert fresh.sysctl_value("ipv4__ip_forward") == "0" and fresh.sysctl_value("ipv4__conf__eth0__rp_filter") == "0"
        assert fresh.sysctl_value("ipv4__conf__all__accept_redirects") == "1"


def settings(host, directory: str) -> str:
    return host.run(["sh", "-c", f"cd /proc/sys/net/{directory} && grep -r . . | sort"], check=False).stdout


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
