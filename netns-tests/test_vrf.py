"""--dev with a VRF: the underlay is in a routing table of its own, and the same IPv4 addresses are in use outside it.

    left 10.0.0.2 ---- eth0 10.0.0.1 \\
                                      host
    blue 10.0.0.2 ---- eth1 10.0.0.1 /  eth1 is in the VRF blue
"""

import json

import pytest

from lab import run
from packets import DOMAIN, HERE, THERE

pytestmark = pytest.mark.skipif(
    run("ip link add vrf-probe type vrf table 4100", check=False).returncode != 0, reason="this kernel has no VRFs"
)
run("ip link del vrf-probe", check=False)


@pytest.fixture
def hosts(lab):
    """(host, left, blue)"""
    host, left, blue = (lab.namespace(name) for name in ("host", "left", "blue"))
    lab.veth(host, "eth0", left, "eth0")
    lab.veth(host, "eth1", blue, "eth0", mtu=1400)
    host.ip("link add blue type vrf table 10", "link set blue up", "link set eth1 master blue",
            "addr add 10.0.0.1/8 dev eth0", "addr add 10.0.0.1/8 dev eth1")  # fmt: skip
    for peer in (left, blue):
        peer.ip("addr add 10.0.0.2/8 dev eth0")
    return host, left, blue


@pytest.mark.parametrize("local", ["auto", "10.0.0.1"])
@pytest.mark.parametrize("device, inside", [("blue", True), ("eth1", True), ("eth0", False), (None, False)])
def test_underlay(lab, hosts, device, inside, local):
    """With the VRF, or an interface in it, the tunnel is in there: local address, MTU and packets, both ways."""
    host, left, blue = hosts
    option = f"--dev {device}" if device else ""
    lab.tund(host, f"{DOMAIN} --local {local} {option}")
    peer, other = (blue, left) if inside else (left, blue)
    lab.tund(peer, DOMAIN)
    lab.tund(other, DOMAIN)
    [shown] = json.loads(host.show("-j link show dev tund0"))
    assert shown["mtu"] == (1380 if inside else 1480)
    assert peer.ping(HERE) and host.ping(THERE)
    assert not other.ping(HERE, options="-W 1")


def test_two_tunnels_with_one_address(lab, hosts):
    """In the VRF and outside."""
    host, left, blue = hosts
    lab.tund(host, f"{DOMAIN} --dev eth0", name="tund0")
    lab.tund(host, "--remote 10.0.0.2 --dev blue --address fd77::1/64", name="tund1")
    lab.tund(left, DOMAIN)
    lab.tund(blue, "--remote 10.0.0.1 --address fd77::2/64")
    assert host.ping(THERE) and host.ping("fd77::2")


def test_an_address_outside_the_vrf(lab, hosts, binary):
    host, *_ = hosts
    host.ip("addr add 192.168.7.1/24 dev eth0")
    for options, named in (("--dev blue --local 192.168.7.1", "not in the VRF blue"),
                           ("--dev eth0 --remote 10.0.0.1", "it is an address of this host")):  # fmt: skip
        done = host.run(f"{binary} run --check {options}", check=False)
        assert done.returncode == 1 and named in done.stderr, done.stderr
