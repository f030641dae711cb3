"""The host's IPv4 address changes while the tunnel runs.

    a 10.0.0.1 -> 10.0.0.7              b 10.0.0.2
    tund0                               tund0
    eth0 ------------- switch ------------- eth0
"""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import traffic
from lab import PATIENCE
from packets import DOMAIN, PREFIX, RELAY_PREFIX
from sixrd import own_address

OLD, NEW = "10.0.0.1", "10.0.0.7"
B = str(own_address(PREFIX, RELAY_PREFIX, "10.0.0.2"))


def overlay(address: str) -> str:
    return str(own_address(PREFIX, RELAY_PREFIX, address))


def addresses(host) -> set[str]:
    [shown] = json.loads(host.show("-j addr show dev tund0"))
    return {entry["local"] for entry in shown["addr_info"]}


def unreachable(host) -> set[str]:
    return {route["dst"] for route in json.loads(host.show("-j -6 route show type unreachable table main"))}


def eventually(condition, what: str, timeout: float = PATIENCE) -> float:
    """Waits for a condition; the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + timeout, what
        time.sleep(0.01)
    return time.monotonic() - start


def pings(host, address: str) -> bool:
    return bool(host.run(f"ping -6 -n -c 1 -W 0.2 {address}", check=False).returncode == 0)


def says(tund, words: str, times: int = 1) -> bool:
    """True when a line of the log has been there so often, and not more often."""
    tund.wait_until(lambda: sum(bool(re.search(words, line)) for line in tund.err) >= times, words)
    return sum(bool(re.search(words, line)) for line in tund.err) == times


@pytest.fixture
def hosts(lab):
    a, b = lab.underlay({"a": f"{OLD}/8", "b": "10.0.0.2/8"})
    a.sysctl(ipv4__conf__eth0__promote_secondaries=1)  # else a subnet's other addresses go with the first one
    return a, b


@pytest.mark.parametrize("how", ["new before old", "old before new", "at once"])
@pytest.mark.parametrize("workers", [1, 2])
def test_follows_the_host(hosts, lab, how, workers):
    """Another address is another prefix: both ends reach each other by it, in the same process, soon."""
    a, b = hosts
    tund, far = lab.tund(a, f"{DOMAIN} --workers {workers}"), lab.tund(b, DOMAIN)
    assert a.ping(B)
    add, delete = f"addr add {NEW}/8 dev eth0", f"addr del {OLD}/8 dev eth0"
    if how == "at once":
        a.ip(delete, add)
    elif how == "new before old":
        a.ip(add)
        assert a.ping(B) and addresses(a) == {overlay(OLD)}, "an address more is no reason to change"
        a.ip(delete)
    else:
        a.ip(delete)
        assert says(tund, "warning.*nothing passes until there is one")
        a.ip(add)
    took = eventually(lambda: pings(b, overlay(NEW)), "the new address is not reached")
    assert took < 2, f"{took} s"
    assert a.ping(B, count=3) and b.ping(overlay(NEW), count=3)
    assert traffic.tcp(a, b, B) and traffic.tcp(b, a, overlay(NEW))
    assert addresses(a) == {overlay(NEW)}
    assert unreachable(a) == {"fd12:3456:7800:7::/64"}
    assert says(tund, rf"info.*renumbered from {OLD} \(fd12:3456:7800:1::/64\) to {NEW} \(fd12:3456:7800:7::/64\)")
    for end in (tund, far):
        assert not [name for name in end.counters() if "spoofed" in name], end.counters()


def test_there_and_back_while_packets_flow(hosts, lab):
    """No packet leaves with a prefix that its outer source does not belong to: b would count it as spoofed."""
    a, b = hosts
    lab.tund(a, DOMAIN), lab.tund(b, DOMAIN)
    [far] = [process for process in lab.processes[1:]]
    stop = False

    def flood(address: str) -> None:
        while not stop:
            a.run(f"ping -6 -n -q -c 200 -i 0.001 -W 0.1 -I tund0 {address}", check=False)

    with ThreadPoolExecutor() as pool:
        floods = [pool.submit(flood, B) for _ in range(2)]
        try:
            for number in range(3):
                old, new = (OLD, NEW) if number % 2 == 0 else (NEW, OLD)
                a.ip(f"addr del {old}/8 dev eth0", f"addr add {new}/8 dev eth0")
                eventually(lambda: pings(b, overlay(new)), f"{new} is not reached")
        finally:
            stop = True
        for flood in floods:
            flood.result()
    assert not [name for name in far.counters() if "spoofed" in name], far.counters()


def test_point_to_point(hosts, lab):
    a, b = hosts
    lab.tund(a, "--remote 10.0.0.2")
    a.ip(f"addr del {OLD}/8 dev eth0", f"addr add {NEW}/8 dev eth0")
    eventually(lambda: addresses(a) == {"fe80::a00:7"}, "no new link-local address")
    lab.tund(b, f"--remote {NEW}")
    assert b.ping("fe80::a00:7%tund0")


def test_the_mtu_follows(hosts, lab):
    a, _ = hosts
    lab.tund(a, DOMAIN)
    a.ip("link set eth0 mtu 1400", f"addr del {OLD}/8 dev eth0", f"addr add {NEW}/8 dev eth0")
    eventually(lambda: "mtu 1380" in a.show("link show tund0"), "MTU")


def test_next_hops_and_other_prefixes_stay(hosts, lab):
    a, b = hosts
    tund = lab.tund(a, f"{DOMAIN} --local-prefix 2001:db8:a::/48 --relay 10.0.0.2 --default-route")
    lab.tund(b, f"{DOMAIN} --local-prefix 2001:db8:b::/48")
    b.ip("addr add 2001:db8:b::1/128 dev lo")
    a.ip("route add 2001:db8:b::/48 via ::10.0.0.2 dev tund0")
    eventually(lambda: pings(a, "2001:db8:b::1"), "next hop")
    a.ip(f"addr add {NEW}/8 dev eth0", f"addr del {OLD}/8 dev eth0")
    says(tund, "renumbered")
    eventually(lambda: pings(a, "2001:db8:b::1"), "next hop")
    assert unreachable(a) == {"fd12:3456:7800:7::/64", "2001:db8:a::/48"}
    assert "default dev tund0" in a.show("-6 route show")


def test_the_same_address_again(hosts, lab):
    a, b = hosts
    tund, _ = lab.tund(a, DOMAIN), lab.tund(b, DOMAIN)
    a.ip(f"addr del {OLD}/8 dev eth0")
    assert says(tund, "warning.*nothing passes until there is one")
    a.ip(f"addr add {OLD}/8 dev eth0")
    assert says(tund, "info.*10.0.0.1 is back")
    assert a.ping(B) and b.ping(overlay(OLD)) and addresses(a) == {overlay(OLD)}


def test_a_link_that_flaps_changes_nothing(hosts, lab):
    """Not even beside another interface with an address that no route prefers: a container bridge's, say."""
    a, b = hosts
    a.ip("link add docker0 type bridge", "addr add 172.17.0.1/16 dev docker0", "link set docker0 up",
         "route add default via 10.0.0.2")
    tund, _ = lab.tund(a, "--6rd-prefix fd00::/32"), lab.tund(b, "--6rd-prefix fd00::/32")
    held = addresses(a)
    a.ip("link set eth0 down")
    assert says(tund, "warning.*nothing passes until there is one")
    a.ip("link set eth0 up")
    assert says(tund, "info.*10.0.0.1 is back")
    assert addresses(a) == held


def test_the_default_route_moves(lab):
    """With the way out the host's choice changes, and the tunnel's with it; a second address alone changes nothing."""
    a, b = lab.namespace("a"), lab.namespace("b")
    for name, net in (("eth0", 1), ("eth1", 2)):
        lab.veth(a, name, b, name)
        a.ip(f"addr add 10.{net}.0.1/16 dev {name}")
        b.ip(f"addr add 10.{net}.0.2/16 dev {name}")
    a.ip("route add default via 10.1.0.2")
    tund = lab.tund(a, "--6rd-prefix fd00::/32")
    assert "fd00:0:a01:1::1" in addresses(a)
    a.ip("addr add 10.2.0.9/16 dev eth1", "route add 192.0.2.0/24 via 10.2.0.2")
    a.ip("route replace default via 10.2.0.2")
    assert says(tund, "renumbered from 10.1.0.1 .* to 10.2.0.1 ")
    assert addresses(a) == {"fd00:0:a02:1::1"}


def test_a_given_address_that_goes_and_returns(hosts, lab):
    """--local A: nobody chooses another one. It is said once, and it works again."""
    a, b = hosts
    tund, _ = lab.tund(a, f"{DOMAIN} --local {OLD}"), lab.tund(b, DOMAIN)
    for round in (1, 2):
        a.ip(f"addr add {NEW}/8 dev eth0", f"addr del {OLD}/8 dev eth0")
        assert says(tund, f"warning.*no interface has the local address {OLD} any more", round)
        assert not a.ping(B, options="-W 0.3") and addresses(a) == {overlay(OLD)}
        a.ip(f"addr add {OLD}/8 dev eth0", f"addr del {NEW}/8 dev eth0")
        assert says(tund, f"info.*local address {OLD} is back", round)
        assert a.ping(B) and b.ping(overlay(OLD))
    assert any(name.startswith("underlay-send.") for name in tund.counters())


def test_the_tun_goes_down_and_up(hosts, lab):
    a, b = hosts
    tund, _ = lab.tund(a, f"{DOMAIN} --local-prefix 2001:db8::/48"), lab.tund(b, DOMAIN)
    before = a.show("-6 route show"), addresses(a), a.show("-6 nexthop show")
    for _ in range(3):
        a.ip("link set tund0 down", "link set tund0 up")
        eventually(lambda: (a.show("-6 route show"), addresses(a), a.show("-6 nexthop show")) == before, "as it was")
    assert a.ping(B) and b.ping(overlay(OLD))
    assert any("put its addresses and routes back" in line for line in tund.err)


def test_stays_on_its_interface(lab):
    """--dev: another interface has the better route, and gets no packet, not from the new address either."""
    host, wrong = lab.namespace("host"), lab.namespace("wrong")
    far = lab.namespace("far")
    lab.veth(host, "eth0", far, "eth0")
    lab.veth(host, "eth1", wrong, "eth0")
    host.ip(f"addr add {OLD}/8 dev eth0", "addr add 192.0.2.1/24 dev eth1", "link set eth0 arp off", "link set eth1 arp off")
    host.sysctl(ipv4__conf__eth0__promote_secondaries=1)
    tund = lab.tund(host, f"{DOMAIN} --dev eth0 --workers 1")
    host.ip("route add 10.0.0.0/9 dev eth1")
    right, other = lab.packet_socket(far, "eth0"), lab.packet_socket(wrong, "eth0")

    def tunnel_packets(wire):
        return [packet for packet in wire.drain() if packet[:1] == b"\x45" and packet[9] == 41]

    for change in (None, NEW):
        if change:
            host.ip(f"addr add {NEW}/8 dev eth0", f"addr del {OLD}/8 dev eth0")
            assert says(tund, f"renumbered from {OLD}.* to {NEW}")
        right.drain(), other.drain()
        for size in (100, 1000):
            host.run(f"ping -6 -n -c 1 -W 0.2 -s {size} {B}", check=False)
        assert len(tunnel_packets(right)) == 2 and not tunnel_packets(other)
