"""Routes of the kernel with an IPv4 next hop, `via ::a.b.c.d`: as with sit, they say which host to send to.

        far end                          host
     packet socket ---veth--- eth0 10.0.0.1/8 ... tund ... tund0 --- packet socket
                                            ip -6 route add 2001:db8::/32 via ::10.0.0.9 dev tund0
"""

import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import traffic
from lab import PATIENCE
from packets import DOMAIN, HERE, IP, PEER, THERE, in_ipv4, inner
from wire import HostOnAWire

OUTSIDE = "2001:db8::9"


def receiver(wire: HostOnAWire, destination: str) -> str:
    """The IPv4 host that an address is sent to; else why it is not sent."""
    seen = wire.observe(from_host=[inner(HERE, destination)])
    return IP(seen.to_wire[0]).dst if seen.to_wire else " ".join(name for name in seen.counters)


def goes_to(wire: HostOnAWire, destination: str, expected: str) -> bool:
    """True as soon as it does: a route is followed a moment after it was added."""
    end = time.monotonic() + PATIENCE
    while (last := receiver(wire, destination)) != expected:
        assert time.monotonic() < end, f"{destination} goes to {last}, not to {expected}\n{wire.tund.transcript()}"
    return True


def warned(wire: HostOnAWire, words: str) -> bool:
    return bool(wire.tund.wait_until(lambda: [line for line in wire.tund.err if re.search(f"warning.*{words}", line)], words))


#: What is added to the kernel, and where a destination goes then. (tund has no relay: nothing outside the domain goes anywhere.)
CASES = [
    ("a prefix", ["route add 2001:db8::/32 via ::10.0.0.9 dev tund0"], OUTSIDE, "10.0.0.9"),
    ("next to a prefix", ["route add 2001:db8:1::/48 via ::10.0.0.9 dev tund0"], OUTSIDE, "uplink.no-route"),
    ("a host outside the relay prefix", ["route add 2001:db8::/32 via ::192.0.2.1 dev tund0"], OUTSIDE, "192.0.2.1"),
    ("the default route", ["route add default via ::10.0.0.9 dev tund0"], OUTSIDE, "10.0.0.9"),
    ("the default route, and an address of the domain", ["route add default via ::10.0.0.9 dev tund0"], THERE, PEER),
    ("around the domain", ["route add fd12::/16 via ::10.0.0.9 dev tund0"], THERE, PEER),
    ("the longest prefix", [f"route add 2001:db8::/{length} via ::10.0.0.{length} dev tund0" for length in (32, 64, 48)],
     OUTSIDE, "10.0.0.64"),
    ("the lowest metric", [f"route add 2001:db8::/32 via ::10.0.0.{last} dev tund0 metric {metric}"
                           for last, metric in ((7, 70), (8, 20), (9, 90))], OUTSIDE, "10.0.0.8"),
    ("a route without next hop before one with", ["route add 2001:db8::/32 dev tund0 metric 10",
                                                  "route add 2001:db8::/32 via ::10.0.0.9 dev tund0"],
     OUTSIDE, "uplink.no-route"),
    ("another table", ["route add 2001:db8::/32 via ::10.0.0.9 dev tund0 table 77"], OUTSIDE, "10.0.0.9"),
    ("the main table before another", ["route add 2001:db8::/32 via ::10.0.0.8 dev tund0 table 77 metric 1",
                                       "route add 2001:db8::/32 via ::10.0.0.9 dev tund0"], OUTSIDE, "10.0.0.9"),
    ("a nexthop object", ["nexthop add id 5 via ::10.0.0.9 dev tund0", "route add 2001:db8::/32 nhid 5"], OUTSIDE, "10.0.0.9"),
    ("only some sources", ["route add 2001:db8::/32 from 2001:db8:1::/48 via ::10.0.0.9 dev tund0"], OUTSIDE,
     "uplink.no-route"),
    ("a gateway that holds an address as in 6rd", ["route add 2001:db8::/32 via fd12:3456:7800:9::1 dev tund0 onlink"], OUTSIDE,
     "uplink.no-route"),
]  # fmt: skip


@pytest.fixture(scope="module")
def clean_wire(shared_lab):
    return HostOnAWire(shared_lab)


@pytest.fixture
def wire(clean_wire):
    """Without the routes of the test before."""
    yield clean_wire
    for table in ("main", "77"):
        clean_wire.host.run(f"ip -6 route flush table {table} proto boot", check=False)
    clean_wire.host.run("ip -6 nexthop del id 5", check=False)
    for destination in (OUTSIDE, "3fff::1"):
        assert goes_to(clean_wire, destination, "uplink.no-route")


@pytest.mark.parametrize("commands, destination, expected", [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_route(wire, commands, destination, expected):
    # When the last one is followed, so are those before it: all are looked at together.
    wire.host.ip(*commands, "route add 3fff::/32 via ::10.0.0.33 dev tund0")
    assert goes_to(wire, "3fff::1", "10.0.0.33")
    assert receiver(wire, destination) == expected


def test_changes_are_followed(wire):
    for command, expected in [
        ("route add 2001:db8::/32 via ::10.0.0.7 dev tund0", "10.0.0.7"),
        ("route replace 2001:db8::/32 via ::10.0.0.8 dev tund0", "10.0.0.8"),
        ("route add 2001:db8::/32 via ::10.0.0.9 dev tund0 metric 9", "10.0.0.9"),
        ("route del 2001:db8::/32 metric 9", "10.0.0.8"),
        ("route del 2001:db8::/32", "uplink.no-route"),
        ("nexthop add id 5 via ::10.0.0.7 dev tund0", "uplink.no-route"),
        ("route add 2001:db8::/32 nhid 5", "10.0.0.7"),
        ("nexthop replace id 5 via ::10.0.0.8 dev tund0", "10.0.0.8"),
        ("nexthop del id 5", "uplink.no-route"),
    ]:
        wire.host.ip(command)
        assert goes_to(wire, OUTSIDE, expected), command


def test_the_next_hop_may_send_from_there(wire):
    wire.host.ip("route add 2001:db8::/32 via ::10.0.0.9 dev tund0")
    assert goes_to(wire, OUTSIDE, "10.0.0.9")
    packets = [in_ipv4(inner(OUTSIDE, HERE), source=source) for source in ("10.0.0.9", "10.0.0.8")]
    seen = wire.observe(from_wire=packets)
    assert seen.to_host == [bytes(inner(OUTSIDE, HERE))]
    assert seen.counters["downlink.inner-source-unauthorized"] == 1


def test_an_ipv4_compatible_destination_opens_nothing(wire):
    """::/96 is on the link so that the kernel takes such gateways: not as a destination."""
    assert receiver(wire, "::10.0.0.9") == "uplink.no-route"
    assert "::/96" in wire.host.show("-6 route show dev tund0")


REFUSED = [
    ("this host", "::10.0.0.1", "2001:db8::/32", "own address"),
    ("no host", "::224.0.0.1", "2001:db8::/32", "not the address of a host"),
    ("a broadcast address", "::10.255.255.255", "2001:db8::/32", "broadcast"),
    ("inside the domain", "::10.0.0.9", "fd12:3456:7800:2::/64", "in the domain"),
    ("reserved", "::10.0.0.9", "::ffff:10.0.0.0/104", "never routed"),
]


@pytest.mark.parametrize("gateway, prefix, words", [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_not_followed(wire, gateway, prefix, words):
    """A warning says why, once."""
    wire.host.ip(f"route add {prefix} via {gateway} dev tund0", "route add 3fff::/32 via ::10.0.0.33 dev tund0")
    assert goes_to(wire, "3fff::1", "10.0.0.33")
    assert warned(wire, f"{prefix}.*{words}")
    assert receiver(wire, OUTSIDE) == "uplink.no-route" and receiver(wire, THERE) == PEER


def test_of_several_next_hops_the_first_is_used(wire):
    wire.host.ip("route add 2001:db8::/32 nexthop via ::10.0.0.8 dev tund0 nexthop via ::10.0.0.9 dev tund0")
    assert goes_to(wire, OUTSIDE, "10.0.0.8")
    assert warned(wire, "2001:db8::/32.*2 next hops")


def test_a_thousand_routes_at_once(lab):
    """They are followed together, not one by one."""
    wire = HostOnAWire(lab, f"{DOMAIN} --log-level debug")
    wire.host.ip(*[f"route add 2001:db8:{number:x}::/48 via ::10.1.{number // 250}.{number % 250 + 1} dev tund0"
                   for number in range(1000)])  # fmt: skip
    assert goes_to(wire, "2001:db8:3e7::1", "10.1.3.250")
    for number in range(0, 1000, 111):
        assert receiver(wire, f"2001:db8:{number:x}::1") == f"10.1.{number // 250}.{number % 250 + 1}"
    looks = [line for line in wire.tund.err if "following" in line]
    assert len(looks) < 20, wire.tund.transcript()


def test_more_changes_than_the_kernel_keeps_for_us(lab):
    """Changes that nobody read in time are lost: then all routes are looked at anew."""
    wire = HostOnAWire(lab)
    wire.host.ip("route add 2001:db8::/48 via ::10.0.0.7 dev tund0")
    assert goes_to(wire, OUTSIDE, "10.0.0.7")
    wire.tund.signal(signal.SIGSTOP)
    wire.host.ip("route del 2001:db8::/48", *[f"route add 2001:db8:{number:x}::/48 via ::10.0.0.9 dev tund0"
                                                for number in range(1, 3000)])  # fmt: skip
    drops = [line.split()[-2] for line in wire.host.run("cat /proc/net/netlink").stdout.splitlines()[1:]]
    assert any(int(count) > 0 for count in drops), "nothing was lost: this shows nothing"
    wire.tund.signal(signal.SIGCONT)
    assert goes_to(wire, "2001:db8:bb7::1", "10.0.0.9")
    assert receiver(wire, OUTSIDE) == "uplink.no-route"


def test_beside_a_static_route(lab):
    """--route puts a route without next hop into the kernel, which takes no other one with that metric; to replace it is to
    replace it here, too."""
    wire = HostOnAWire(lab, f"{DOMAIN} --route 2001:db8::/32=10.0.0.7")
    assert receiver(wire, OUTSIDE) == "10.0.0.7"
    wire.host.ip("route replace 2001:db8::/32 via ::10.0.0.8 dev tund0")
    assert goes_to(wire, OUTSIDE, "10.0.0.8")
    wire.host.ip("route del 2001:db8::/32")
    assert goes_to(wire, OUTSIDE, "10.0.0.7")


def test_without_routes_of_our_own(lab):
    """--address none leaves ::/96 out: such a gateway has to be called on-link then."""
    wire = HostOnAWire(lab, f"{DOMAIN} --address none", before_tund=lambda host: host.ip(f"addr add {HERE}/64 dev lo"))
    wire.host.ip(f"route add {THERE}/64 dev tund0 ".replace("::1/64", "::/64"))
    with pytest.raises(RuntimeError, match="No route to host"):
        wire.host.ip("route add 2001:db8::/32 via ::10.0.0.9 dev tund0")
    wire.host.ip("route add 2001:db8::/32 via ::10.0.0.9 dev tund0 onlink")
    assert goes_to(wire, OUTSIDE, "10.0.0.9")


def test_between_hosts_while_routes_come_and_go(lab):
    """The command as with sit, through the kernel; and nothing of it disturbs what flows elsewhere."""
    a, b, c = lab.underlay({"a": "192.0.2.7/24", "b": "192.0.2.1/24", "c": "192.0.2.3/24"})
    [tund, *_] = [lab.tund(a), lab.tund(b, "--local-prefix 2001:db8::/32"), lab.tund(c)]
    b.ip("addr add 2001:db8::1/128 dev lo")
    a.ip("route add 2001:db8::/32 via ::192.0.2.1 dev tund0")
    tund.wait_until(lambda: a.ping("2001:db8::1"), "answer through the next hop")
    before = tund.counters()
    with ThreadPoolExecutor() as pool:
        transfer = pool.submit(traffic.tcp, a, c, "2002:c000:203::1", size=64 << 20)
        rounds = 0
        while not transfer.done():
            rounds += 1
            a.ip("route del 2001:db8::/32", "route add 2001:db8::/32 via ::192.0.2.3 dev tund0")
            a.ip("route replace 2001:db8::/32 via ::192.0.2.1 dev tund0")
        assert transfer.result()
    assert rounds > 2
    drops = {name: value for name, value in (tund.counters() - before).items() if name.startswith(("uplink.", "downlink."))
             and name.split(".")[1] not in ("packets", "bytes")}
    assert not drops, drops
    # The last change is followed a moment later.
    tund.wait_until(lambda: a.ping("2001:db8::1"), "answer through the last next hop")
    assert a.ping("2001:db8::1", count=3)
