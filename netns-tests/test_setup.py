"""What tund makes of its interface, for each way to ask for it.

    eth0 10.0.0.1/8 --- (far end, silent)
    eth1 192.168.7.1/24 --- (far end, silent)
    tund0
"""

import json
import re
import socket
import time

import pytest

FD = "--6rd-prefix fd12:3456:7800::/40 --6rd-relay-prefix 10.0.0.0/8"


@pytest.fixture
def host(lab):
    made, far = lab.namespace("host"), lab.namespace("far")
    lab.veth(made, "eth0", far, "eth0", mtu=1500)
    lab.veth(made, "eth1", far, "eth1", mtu=1400)
    made.ip("addr add 10.0.0.1/8 dev eth0", "addr add 192.168.7.1/24 dev eth1")
    return made


def link(host) -> dict:
    [shown] = json.loads(host.show("-j -d addr show dev tund0"))
    return shown


def addresses(host) -> list[str]:
    return [f"{entry['local']}/{entry['prefixlen']}" for entry in link(host)["addr_info"] if entry["family"] == "inet6"]


def routes(host) -> set[tuple]:
    """(type, destination, device) of each IPv6 route, without those the kernel makes for addresses and multicast."""
    shown = json.loads(host.show("-j -d -6 route show table main"))
    return {(route["type"], route["dst"], route["dev"]) for route in shown if route["protocol"] != "kernel"}


ADDRESSES = [
    ("default domain", "--local 10.0.0.1", ["2002:a00:1::1/16"]),
    ("domain", f"--local 10.0.0.1 {FD}", ["fd12:3456:7800:1::1/40"]),
    ("auto in the domain", f"--local 10.0.0.1 --address auto {FD}", ["fd12:3456:7800:1::1/40"]),
    ("none", f"--local 10.0.0.1 --address none {FD}", []),
    ("given", f"--local 10.0.0.1 --address fd12:3456:7800:1::53/64 {FD}", ["fd12:3456:7800:1::53/64"]),
    ("local address by --dev", "--dev eth1", ["2002:c0a8:701::1/16"]),
    ("point to point", "--local 10.0.0.1 --remote 10.0.0.2", ["fe80::a00:1/64"]),
    ("point to point, none", "--local 10.0.0.1 --remote 10.0.0.2 --address none", []),
    ("point to point, given", "--local 10.0.0.1 --remote 10.0.0.2 --address 2001:db8::1/64",
     ["2001:db8::1/64", "fe80::a00:1/64"]),
]


@pytest.mark.parametrize("options, expected", [row[1:] for row in ADDRESSES], ids=[row[0] for row in ADDRESSES])
def test_address(host, lab, options, expected):
    """Exactly these addresses and no link-local one that the kernel invents. They are usable at once: a tunnel has
    nobody to ask whether an address is taken (nodad)."""
    lab.tund(host, options)
    assert addresses(host) == expected
    assert all(entry["nodad"] for entry in link(host)["addr_info"])
    assert host.sysctl_value("ipv6__conf__tund0__addr_gen_mode") == "1", "none"
    assert "UP" in link(host)["flags"]


def test_point_to_point_with_a_domain(host, lab):
    """The domain gives the address; it gives no other peer."""
    lab.tund(host, f"--local 10.0.0.1 --remote 10.0.0.2 {FD}")
    assert "fd12:3456:7800:1::1/40" in addresses(host)


def test_name(host, lab):
    lab.tund(host, "--local 10.0.0.1", name="overlay")
    assert "overlay" in host.show("link show")


#: In a domain the kernel takes gateways of the form ::a.b.c.d.
OWN = {("unreachable", "fd12:3456:7800:1::/64"), ("unicast", "::/96")}

ROUTES = [
    ("domain", FD, OWN),
    ("local prefixes", f"{FD} --local-prefix 2001:db8:1::/48 --local-prefix 2001:db8:2::/64",
     OWN | {("unreachable", "2001:db8:1::/48"), ("unreachable", "2001:db8:2::/64")}),
    ("routes", f"{FD} --route 2001:db8:5::/48=10.0.0.5 --route 2001:db8:6::/48=10.0.0.6",
     OWN | {("unicast", "2001:db8:5::/48"), ("unicast", "2001:db8:6::/48")}),
    ("default route to a relay", f"{FD} --relay 10.0.0.9 --default-route",
     OWN | {("unicast", "default")}),
    ("a relay without the default route", f"{FD} --relay 10.0.0.9", OWN),
    ("default route to the remote", "--remote 10.0.0.2 --default-route", {("unicast", "default")}),
    ("none", f"{FD} --address none", set()),
]  # fmt: skip


@pytest.mark.parametrize("options, expected", [row[1:] for row in ROUTES], ids=[row[0] for row in ROUTES])
def test_routes(host, lab, options, expected):
    lab.tund(host, f"--local 10.0.0.1 {options}")
    assert {(kind, destination) for kind, destination, _ in routes(host)} == expected
    assert all(device == "tund0" for kind, _, device in routes(host) if kind == "unicast")


def test_unreachable_routes_give_way_to_every_other_route(host, lab):
    lab.tund(host, f"--local 10.0.0.1 {FD} --local-prefix 2001:db8:1::/48")
    shown = json.loads(host.show("-j -6 route show type unreachable table main"))
    assert [route["metric"] for route in shown] == [4294967295] * 2


MTU = [
    # wire, options, the tunnel's MTU
    (1500, "", 1480),
    (1500, "--mtu auto", 1480),
    (1400, "--mtu auto", 1380),
    (1320, "--mtu auto", 1300),
    (1300, "--mtu auto", 1280),
    (1290, "--mtu auto", 1280),
    (900, "--mtu auto", 1280),
    (9000, "--mtu auto", 8980),
    (1500, "--mtu 1280", 1280),
    (1500, "--mtu 1400", 1400),
    (1500, "--mtu 1400 --address none", 1400),
    (1400, "--address none", 1380),
    (1400, "--remote 10.0.0.2", 1380),
]


@pytest.mark.parametrize("wire, options, expected", MTU, ids=[f"{wire} {options}".strip() for wire, options, _ in MTU])
def test_mtu(host, lab, wire, options, expected):
    host.ip(f"link set eth0 mtu {wire}")
    lab.tund(host, f"--local 10.0.0.1 {options}")
    assert link(host)["mtu"] == expected


def test_mtu_of_the_device_that_is_asked_for(host, lab):
    lab.tund(host, "--dev eth1")
    assert link(host)["mtu"] == 1380


@pytest.mark.parametrize("forwarding", [0, 1], ids=["forwarding off", "forwarding on"])
def test_forwarding_is_left_alone_and_warned_about(host, lab, forwarding):
    host.sysctl(ipv6__conf__all__forwarding=forwarding)
    tund = lab.tund(host, "--local 10.0.0.1")
    assert host.sysctl_value("ipv6__conf__all__forwarding") == str(forwarding)
    warned = any(re.search(r"warning.*forwarding", line, re.IGNORECASE) for line in tund.err)
    assert warned == (not forwarding), tund.transcript()


@pytest.mark.parametrize("pause", [0, 1], ids=["at once", "later"])
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_starts_again(host, lab, end, pause):
    """What an earlier run may have left behind is no obstacle: its unreachable routes after a kill, and its interface, which
    the kernel takes down some milliseconds after the process has gone."""
    options = f"--local 10.0.0.1 {FD} --local-prefix 2001:db8:1::/48"
    first = lab.tund(host, options)
    first.stop() if end == "stopped" else first.kill()
    time.sleep(pause)
    lab.tund(host, options)
    assert addresses(host) == ["fd12:3456:7800:1::1/40"]


def test_at_ready_the_address_is_at_work(host, lab):
    """The kernel puts an address to work a moment after it has accepted it. Until then it answers peers with `no route`, from
    which connections do not recover: so tund must not say ready before. Many starts, since the moment is short."""
    for number in range(20):
        probe = host.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with probe:
            tund = lab.tund(host, f"--local 10.0.0.1 {FD}")
            probe.connect(("fd12:3456:7800:1::1", 9))  # no packet: a look at the routes
            assert probe.getsockname()[0] == "fd12:3456:7800:1::1", f"start {number}: still without its local route"
        tund.stop()
