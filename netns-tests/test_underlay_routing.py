"""The tunnel's own address, its way out and its MTU are what the kernel's routing says of its packets.

    a: wan1, wan2, lo, ... ------ g1, g2: whoever is at the other end
"""

import json
import time

import pytest

import traffic
from packets import in_ipv4, inner
from test_renumbering import eventually, says

DOMAIN = "--6rd-prefix fd00::/32"


def facts(host, binary, options: str) -> str:
    """`local A on IFACE, path MTU N`"""
    return host.run(f"{binary} run {options} --check").stdout.splitlines()[0].removeprefix("# ")


@pytest.fixture
def host(lab):
    """With wan1 (MTU 1500) and wan2 (1400), both without addresses."""
    made, far = lab.namespace("a"), lab.namespace("g")
    lab.veth(made, "wan1", far, "in1")
    lab.veth(made, "wan2", far, "in2", mtu=1400)
    return made


TWO = ["addr add 192.168.1.2/24 dev wan1", "addr add 192.168.2.2/24 dev wan2"]
DUMMY = ["link add node0 type bridge", "link set node0 addrgenmode none mtu 9000 up"]  # stands for a dummy

#: What the host is like, the options, and what the tunnel makes of it.
CASES = {
    "the source of the default route, on lo": (
        ["addr add 172.31.0.1/30 dev wan2", "addr add 10.0.0.1/32 dev lo", "route add default via 172.31.0.2 src 10.0.0.1"],
        DOMAIN, "local 10.0.0.1 on wan2, path MTU 1400"),
    "on a dummy, and the MTU of the way out": (
        ["addr add 172.31.0.1/30 dev wan2", *DUMMY, "addr add 10.0.0.1/32 dev node0",
         "route add default via 172.31.0.2 src 10.0.0.1"],
        DOMAIN, "local 10.0.0.1 on wan2, path MTU 1400"),
    "routes to the peers and no default route": (
        ["addr add 172.31.0.1/30 dev wan2", "addr add 10.0.0.1/32 dev lo", "route add 10.0.0.0/8 via 172.31.0.2 src 10.0.0.1"],
        f"{DOMAIN} --6rd-relay-prefix 10.0.0.0/8", "local 10.0.0.1 on wan2, path MTU 1400"),
    "the same, and any host may be a peer": (
        ["addr add 172.31.0.1/30 dev wan2", "addr add 10.0.0.1/32 dev lo", "route add 10.0.0.0/8 via 172.31.0.2 src 10.0.0.1"],
        f"{DOMAIN} --local 10.0.0.1", "local 10.0.0.1 on wan2, path MTU 1400"),
    "a rule for the source": (
        [*TWO, "route add default via 192.168.1.1 metric 10", "route add default via 192.168.2.1 metric 20",
         "rule add from 192.168.2.2 table 200", "route add default via 192.168.2.1 table 200"],
        "--local 192.168.2.2 --remote 10.9.9.9", "local 192.168.2.2 on wan2, path MTU 1400"),
    "a rule for the mark": (
        [*TWO, "route add default via 192.168.1.1", "rule add fwmark 7 table 200", "route add default via 192.168.2.1 table 200"],
        f"{DOMAIN} --fwmark 7", "local 192.168.2.2 on wan2, path MTU 1400"),
    "the remote's route, not the default one": (
        [*TWO, "route add default via 192.168.1.1", "route add 10.9.0.0/16 via 192.168.2.1"],
        "--remote 10.9.9.9", "local 192.168.2.2 on wan2, path MTU 1400"),
    "the relay's route": (
        [*TWO, "route add 10.9.0.0/16 via 192.168.2.1"], f"{DOMAIN} --relay 10.9.9.9", "local 192.168.2.2 on wan2, path MTU 1400"),
    "the mtu of the route": (
        [*TWO, "route add default via 192.168.1.1 mtu 1420"], DOMAIN, "local 192.168.1.2 on wan1, path MTU 1420"),
    "an address that is a route only": (
        [*TWO, "route add default via 192.168.1.1", "route add local 203.0.113.5 dev lo"],
        f"{DOMAIN} --local 203.0.113.5", "local 203.0.113.5 on wan1, path MTU 1500"),
    "--dev by its alternative name": (
        [*TWO, "link property add dev wan2 altname uplink-of-the-second-provider"],
        f"{DOMAIN} --dev uplink-of-the-second-provider", "local 192.168.2.2 on wan2, path MTU 1400"),
}  # fmt: skip


@pytest.mark.parametrize("commands, options, expected", CASES.values(), ids=CASES)
def test_what_the_kernel_says(host, binary, commands, options, expected):
    host.ip(*commands)
    assert facts(host, binary, options) == expected


def mtu(host) -> int:
    [link] = json.loads(host.show("-j link show dev tund0"))
    return link["mtu"]


def test_the_mtu_is_followed(lab, host):
    """That of the link and that of the route; not one that was given, and not what somebody claims to have met on the way."""
    host.ip(*TWO, "route add default via 192.168.1.1")
    tund = lab.tund(host, DOMAIN)
    assert mtu(host) == 1480
    host.ip("link set wan1 mtu 1300")
    eventually(lambda: mtu(host) == 1280, tund.transcript())
    host.ip("link set wan1 mtu 1500")
    eventually(lambda: mtu(host) == 1480, tund.transcript())
    host.ip("route replace default via 192.168.1.1 mtu 1400")
    eventually(lambda: mtu(host) == 1380, tund.transcript())
    assert says(tund, "info.*path MTU 1400")
    host.ip("route replace default via 192.168.2.1")
    eventually(lambda: mtu(host) == 1380, tund.transcript())
    fixed = lab.tund(host, "--remote 192.168.1.1 --mtu 1450 --local 192.168.2.2 --address none", name="fixed")
    host.ip("link set wan1 mtu 1300")
    time.sleep(0.7)
    assert "mtu 1450" in host.show("link show dev fixed"), fixed.transcript()


def test_a_forged_path_mtu_does_not_make_the_tunnel_narrow(lab, binary):
    """`ip route get` shows what the kernel has learnt, from whom ever; the tunnel's MTU is the route's own."""
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    tund = lab.tund(a, "--remote 10.0.0.2")
    raw = b.socket(2, 3, 1)
    quote = bytes.fromhex("4500 004c 0000 4000 4029 0000 0a000001 0a000002") + bytes(64)
    error = bytes.fromhex("0304 0000 0000 0258") + quote
    total = sum(int.from_bytes(error[index:index + 2], "big") for index in range(0, len(error), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    with raw:
        raw.sendto(error[:2] + (~total & 0xFFFF).to_bytes(2, "big") + error[4:], ("10.0.0.1", 0))
    eventually(lambda: "mtu 600" in a.show("route get 10.0.0.2"), "nothing learnt: this shows nothing")
    a.ip("addr add 10.0.0.9/8 dev eth0")  # a reason to look
    time.sleep(0.8)
    assert mtu(a) == 1480
    tund.stop()
    assert facts(a, binary, "--remote 10.0.0.2") == "local 10.0.0.1 on eth0, path MTU 1500"


def test_the_way_through_the_tunnel_is_no_way_out(lab):
    """A full tunnel: IPv4's default route leads into it. While the link below is away, the address inside is not the tunnel's own."""
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    tund = lab.tund(a, "--remote 10.0.0.2 --mode any --address fd77::1/64")
    lab.tund(b, "--remote 10.0.0.1 --mode any --address fd77::2/64")
    a.ip("addr add 172.16.0.1/30 dev tund0", "route add default dev tund0")
    b.ip("addr add 172.16.0.2/30 dev tund0")
    assert a.ping("172.16.0.2") and a.ping("fd77::2")
    for _ in range(3):
        a.ip("link set eth0 down")
        time.sleep(0.6)
        a.ip("link set eth0 up")
        time.sleep(0.6)
    assert not [line for line in tund.err if "renumbered" in line], tund.transcript()
    b.ip("neigh flush dev eth0")
    tund.wait_until(lambda: a.ping("172.16.0.2") and a.ping("fd77::2"), "answer")


# --- --dev is an interface, whatever it is called ---


def carries(host, far, options: str, lab):
    """A tunnel over `up0`, and one at the other end; what it takes for packets to cross."""
    tund = lab.tund(host, f"{DOMAIN} {options}")
    lab.tund(far, DOMAIN)
    return tund


@pytest.fixture
def dial_up(lab):
    """(host, peer): `up0` on both is a wire that may be made anew."""
    host, peer = lab.namespace("host"), lab.namespace("peer")
    connect(lab, host, peer)
    return host, peer


def connect(lab, host, peer) -> None:
    lab.veth(host, "up0", peer, "up0")
    host.ip("addr add 10.0.0.1/24 dev up0")
    peer.ip("addr add 10.0.0.2/24 dev up0")


HOST, PEER = "fd00:0:a00:1::1", "fd00:0:a00:2::1"


def test_the_device_is_renamed(lab, dial_up):
    host, peer = dial_up
    tund = carries(host, peer, "--dev up0", lab)
    assert host.ping(PEER)
    host.ip("link set up0 down", "link set up0 name wan0", "link set wan0 up", "addr replace 10.0.0.1/24 dev wan0")
    tund.wait_until(lambda: host.ping(PEER, options="-W 1") and peer.ping(HOST, options="-W 1"), "answer")
    host.sysctl(ipv4__conf__wan0__promote_secondaries=1)
    host.ip("addr add 10.0.0.7/24 dev wan0", "addr del 10.0.0.1/24 dev wan0")
    assert says(tund, "renumbered from 10.0.0.1 .* to 10.0.0.7")
    tund.wait_until(lambda: host.ping(PEER, options="-W 1"), "answer")


@pytest.mark.parametrize("local", ["auto", "10.0.0.1"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_device_is_made_anew(lab, dial_up, local, workers):
    """As a dial-up interface is at each call: it has another index, and packets go through it, and through no other, again."""
    host, peer = dial_up
    tund = carries(host, peer, f"--dev up0 --local {local} --workers {workers}", lab)
    for number in range(1, 4):
        assert host.ping(PEER) and peer.ping(HOST)
        host.ip("link del up0")
        assert says(tund, "warning.*nothing passes until", number), tund.transcript()
        connect(lab, host, peer)
        tund.wait_until(lambda: sum("address 10.0.0.1 is back" in line for line in tund.err) == number, "word that it is back", 5)
        assert traffic.tcp(host, peer, PEER) and traffic.tcp(peer, host, HOST)


def test_the_device_is_made_anew_while_the_tunnel_waits(lab, dial_up):
    """Since its start: no address has been there yet."""
    host, peer = dial_up
    host.ip("addr flush dev up0")
    lab.tund(peer, DOMAIN)
    tund = lab.tund(host, f"{DOMAIN} --dev up0 --workers 2", until="waits")
    host.ip("link del up0")
    tund.wait_until(lambda: any("no such interface" in line and "tund waits for it" in line for line in tund.err), "a warning")
    connect(lab, host, peer)
    tund.wait_until(lambda: host.ping(PEER, options="-W 1") and peer.ping(HOST, options="-W 1"), "answer")
    assert traffic.tcp(host, peer, PEER) and traffic.tcp(peer, host, HOST)


def test_the_device_is_made_anew_beside_others(lab, dial_up):
    """Packets that come for the same address through another interface are still not the tunnel's."""
    host, peer = dial_up
    other = lab.namespace("other")
    lab.veth(host, "side0", other, "side0")
    host.ip("addr add 10.1.0.1/24 dev side0")
    host.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__side0__rp_filter=0)
    tund = carries(host, peer, "--dev up0", lab)
    hardware = host.run("cat /sys/class/net/side0/address").stdout.strip()
    wire = lab.packet_socket(other, "side0", hardware)
    for number in (0, 1):
        if number:
            host.ip("link del up0")
            connect(lab, host, peer)
            tund.wait_until(lambda: host.ping(PEER, options="-W 1"), "answer")
        before = tund.counters()
        wire.send(in_ipv4(inner(PEER, HOST), "10.0.0.2", "10.0.0.1"))
        time.sleep(0.3)
        assert tund.counters()["downlink.packets"] == before["downlink.packets"]
        assert host.ping(PEER) and tund.counters()["downlink.packets"] > before["downlink.packets"]
