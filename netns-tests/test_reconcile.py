"""What others do to the TUN, its addresses and its routes while the tunnel runs: it is put back, and said.

    a 10.0.0.1 ------ switch ------ b 10.0.0.2
    tund0, and core, an interface where other routes come and go
"""

import json
import re
import signal
import time

import pytest

from lab import run
from packets import DOMAIN, PREFIX, RELAY_PREFIX
from sixrd import own_address
from test_privileges import status
from test_renumbering import addresses, eventually, pings, says

A, B = (str(own_address(PREFIX, RELAY_PREFIX, f"10.0.0.{last}")) for last in (1, 2))


@pytest.fixture
def hosts(lab):
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    lab.tund(b, DOMAIN)
    return a, b


def state(host) -> tuple[str, ...]:
    """All that is the tunnel's, in the kernel's words."""
    link = re.sub(r"(qlen|expires) \S+", "", host.show("-6 addr show dev tund0"))
    return link, host.show("-6 route show table all dev tund0"), host.show("-6 nexthop show"), host.show(
        "route show type unreachable table all")


UNREACHABLE = "unreachable fd12:3456:7800:1::/64 metric 4294967295"

#: What is done, one command after the other.
CHANGES = {
    "addresses flushed": ["ip -6 addr flush dev tund0"],
    "the address deleted": [f"ip -6 addr del {A}/40 dev tund0"],
    "IPv6 switched off and on": ["sysctl -w net.ipv6.conf.tund0.disable_ipv6=1", "sysctl -w net.ipv6.conf.tund0.disable_ipv6=0"],
    "an MTU too small for IPv6, and back": ["ip link set tund0 mtu 1200", "ip link set tund0 mtu 1480"],
    "down and up": ["ip link set tund0 down", "ip link set tund0 up"],
    "nexthop objects flushed": ["ip nexthop flush"],
    "the unreachable route deleted": [f"ip -6 route del {UNREACHABLE}"],
    "the routes deleted": ["ip -6 route del ::/96 dev tund0", "ip -6 route del fd12:3456:7800::/40 dev tund0",
                           f"ip -6 addr del {A}/40 dev tund0"],
    "a route deleted": ["ip -6 route del 2001:db8:7::/48 dev tund0"],
    "all at once": ["ip nexthop flush", "ip -6 route del ::/96 dev tund0", "ip -6 addr flush dev tund0", "ip link set tund0 down",
                    "ip link set tund0 up"],
}  # fmt: skip


@pytest.mark.parametrize("commands", CHANGES.values(), ids=CHANGES)
def test_it_is_put_back_and_said(lab, hosts, commands):
    a, b = hosts
    tund = lab.tund(a, f"{DOMAIN} --local-prefix 2001:db8::/48 --route 2001:db8:7::/48=10.0.0.2 --local 10.0.0.1")
    before = state(a)
    for command in commands:
        a.run(command)
    eventually(lambda: state(a) == before, f"{before}\n{state(a)}\n{tund.transcript()}")
    assert says(tund, "info.*put its addresses and routes back")
    assert a.ping(B) and b.ping(A)


def test_routes_that_tell_their_nexthop_object_only(lab, hosts):
    a, b = hosts
    a.run("sysctl -w net.ipv4.nexthop_compat_mode=0")
    tund = lab.tund(a, f"{DOMAIN} --local 10.0.0.1")
    before = state(a)
    assert "nhid" in before[1] + before[3]
    a.ip("link set tund0 down", "link set tund0 up")
    assert says(tund, "info.*put its addresses and routes back")
    eventually(lambda: state(a) == before, f"{before}\n{state(a)}\n{tund.transcript()}")
    time.sleep(1)
    assert not any("cannot add" in line for line in tund.err), tund.transcript()
    assert a.ping(B) and b.ping(A)


def test_what_keeps_it_from_being_put_back_is_said_once(lab, hosts):
    a, _ = hosts
    tund = lab.tund(a, DOMAIN)
    before = state(a)
    a.run("sysctl -w net.ipv6.conf.tund0.disable_ipv6=1")
    assert says(tund, "warning.*IPv6 is disabled.*sysctl -w net.ipv6.conf.tund0.disable_ipv6=0")
    a.ip("link set tund0 mtu 1200")
    assert says(tund, "warning.*tund0 has no IPv6 with an MTU of 1200: ip link set tund0 mtu 1480")
    time.sleep(3.5)
    warnings = [line for line in tund.err if "warning" in line and "tund0 " in line.split(": ", 1)[1]]
    assert len(warnings) <= 3, tund.transcript()
    a.ip("link set tund0 mtu 1480")
    a.run("sysctl -w net.ipv6.conf.tund0.disable_ipv6=0")
    eventually(lambda: state(a) == before, f"{before}\n{state(a)}\n{tund.transcript()}")


def test_down_is_the_operators_will(lab, hosts):
    a, _ = hosts
    tund = lab.tund(a, DOMAIN)
    a.ip("link set tund0 down")
    assert says(tund, "warning.*tund0 is down")
    time.sleep(1)
    assert "UP" not in json.loads(a.show("-j link show dev tund0"))[0]["flags"]
    a.ip("link set tund0 up")
    eventually(lambda: pings(a, B), "no answer")


def test_others_additions_stay(lab, hosts):
    a, _ = hosts
    tund = lab.tund(a, DOMAIN)
    a.ip("addr add fd77::1/64 dev tund0 nodad", "route add fd78::/64 dev tund0", "link set tund0 mtu 1400")
    a.run(f"ip -6 addr del {A}/40 dev tund0")
    assert says(tund, "put its addresses and routes back")
    assert addresses(a) == {A, "fd77::1"} and "fd78::/64" in a.show("-6 route show dev tund0")
    assert "mtu 1400" in a.show("link show dev tund0")


def test_nobody_is_fought_in_haste(lab, hosts):
    """Another daemon that takes the address away whenever it sees it: neither CPU nor log are filled."""
    a, _ = hosts
    tund = lab.tund(a, DOMAIN)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        a.run("ip -6 addr flush dev tund0", check=False)
    lines = [line for line in tund.err if "put its addresses" in line]
    assert 2 <= len(lines) <= 9, tund.transcript()
    eventually(lambda: addresses(a) == {A}, "not put back")


def test_changes_that_overran_the_monitor(lab, hosts):
    """What is lost with the messages that found no room is seen all the same."""
    a, b = hosts
    far = lab.namespace("far")
    lab.veth(a, "core", far, "core")
    a.ip("addr add fe80::1/64 dev core nodad")
    tund = lab.tund(a, f"{DOMAIN} --local 10.0.0.1")
    before = state(a)
    tund.signal(signal.SIGSTOP)
    churn = [f"addr {verb} 2000:{number:x}::1/128 dev tund0" for number in range(1500) for verb in ("add", "del")]
    a.ip(*churn, "link set tund0 down", "link set tund0 up", *churn)
    drops = [line.split()[-2] for line in a.run("cat /proc/net/netlink").stdout.splitlines()[1:]]
    assert any(int(count) > 0 for count in drops), "nothing was lost: this shows nothing"
    tund.signal(signal.SIGCONT)
    eventually(lambda: state(a) == before, f"{before}\n{state(a)}\n{tund.transcript()}")
    assert a.ping(B) and b.ping(A)


def test_next_hops_while_other_routes_never_rest(lab, hosts):
    """A dump of the kernel's routes that changes interrupt may lack some: none is lost for that."""
    a, _ = hosts
    far = lab.namespace("far")
    lab.veth(a, "core", far, "core")
    a.ip("addr add fe80::1/64 dev core nodad")
    tund = lab.tund(a, f"{DOMAIN} --log-level debug")
    a.ip(*[f"route add 2a00:{number:x}::/48 via ::10.0.0.2 dev tund0" for number in range(2000)])

    def followed() -> int:
        counts = [int(match[1]) for line in tund.err if (match := re.search(r"following (\d+) routes", line))]
        return counts[-1] if counts else 0

    eventually(lambda: followed() == 2000, "not followed")
    churn = lab.process(a, ["sh", "-c", """i=0; while :; do i=$(( (i + 7) % 65536 )); h=$(printf %x $i)
        ip -6 route add 2000:$h::/48 via fe80::2 dev core; ip -6 route del 2000:$h::/48; done"""])
    for number in range(12):
        a.ip(f"route add 2b00:{number:x}::/48 via ::10.0.0.2 dev tund0")
        eventually(lambda: followed() == 2001 + number, f"{followed()} in place of {2001 + number}")
    a.ip(*[f"route del 2b00:{number:x}::/48" for number in range(12)])
    churn.kill()
    eventually(lambda: followed() == 2000, f"{followed()} in place of 2000")


def test_routes_elsewhere_cost_nothing(lab, hosts):
    """Those of a routing daemon, plain or over nexthop objects, come and go by the ten thousand."""
    a, _ = hosts
    far = lab.namespace("far")
    lab.veth(a, "core", far, "core")
    a.ip("addr add fe80::1/64 dev core nodad", "nexthop add id 9 via fe80::2 dev core")
    tund = lab.tund(a, DOMAIN)

    def ran() -> float:
        """Milliseconds of the control thread."""
        with open(f"/proc/{tund.pid}/task/{tund.pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e6

    time.sleep(0.5)
    before = ran()
    for how in ("nhid 9", "via fe80::2 dev core"):
        for verb in ("add", "del"):
            a.ip(*[f"route {verb} 2000:{number:x}::/48 {how}" for number in range(10_000)])
    time.sleep(1.5)
    assert ran() - before < 100, f"{ran() - before} ms for 40,000 changes"


# --- Where the TUN goes ---


def test_a_tun_that_moved_away(lab, hosts):
    """Packets go on. Nothing is configured in the other namespace, and least of all an interface here that got its index."""
    a, b = hosts
    pod = lab.namespace("pod")
    a.sysctl(ipv4__conf__eth0__promote_secondaries=1)  # else a subnet's other addresses go with the first one
    tund = lab.tund(a, DOMAIN)
    [index] = [link["ifindex"] for link in json.loads(a.show("-j link show dev tund0"))]
    a.ip(f"link set tund0 netns {pod.name}")
    assert says(tund, "warning.*in another network namespace")
    pod.ip("link set tund0 up", f"addr add {A}/40 dev tund0 nodad")
    assert pod.ping(B)
    a.ip(f"link add innocent index {index} type bridge", "link set innocent addrgenmode none", "link set innocent up",
         "addr add 10.0.0.7/8 dev eth0", "addr del 10.0.0.1/8 dev eth0")  # fmt: skip
    assert says(tund, "renumbered")
    time.sleep(1.5)
    assert "inet6" not in a.show("-6 addr show dev innocent") and not a.show("-6 route show dev innocent")
    assert len([line for line in tund.err if "warning" in line and "another network namespace" in line]) == 1
    # It comes back, under another index.
    pod.ip(f"link set tund0 netns {a.name}")
    a.ip("link set tund0 up")
    eventually(lambda: addresses(a) == {"fd12:3456:7800:7::1"}, tund.transcript())
    assert says(tund, "info.*put its addresses and routes back")
    eventually(lambda: pings(a, B), "no answer")
    a.ip("route add 2001:db8::/48 via ::10.0.0.2 dev tund0")


def test_a_tun_of_the_same_name_is_another_one(lab, hosts):
    a, _ = hosts
    pod = lab.namespace("pod")
    tund = lab.tund(a, DOMAIN)
    a.ip(f"link set tund0 netns {pod.name}")
    a.ip("tuntap add tund0 mode tun", "link set tund0 up")
    time.sleep(1)
    assert A not in a.show("-6 addr show") and tund.running


def test_a_tun_that_is_renamed(lab, hosts):
    a, b = hosts
    tund = lab.tund(a, DOMAIN)
    before = addresses(a)
    a.ip("link set tund0 down", "link set tund0 name overlay", "link set overlay up")
    eventually(lambda: "fd12" in a.show("-6 addr show dev overlay"), tund.transcript())
    assert {entry["local"] for entry in json.loads(a.show("-j addr show dev overlay"))[0]["addr_info"]} == before
    assert a.ping(B) and b.ping(A)
    assert says(tund, "info.*overlay lacked")


# --- Without the right to put anything back ---


def test_no_restore(lab, hosts):
    """Nothing is written and no capability kept; that something is missing is said."""
    a, _ = hosts
    tund = lab.tund(a, f"{DOMAIN} --no-restore")
    assert not any(int(status(thread)["CapPrm"], 16) for thread in tund.threads())
    a.ip("link set tund0 down", "link set tund0 up")
    assert says(tund, "warning.*has lost.*restart tund")
    time.sleep(0.5)
    assert not addresses(a)
    a.ip(f"addr add {A}/40 dev tund0 nodad")
    eventually(lambda: pings(a, B), "no answer")
    # Next hops are still followed, and the address is not.
    a.ip("addr add 10.0.0.7/8 dev eth0", "addr del 10.0.0.1/8 dev eth0")
    assert says(tund, "warning.*no interface has the local address 10.0.0.1 any more")
    assert addresses(a) == {A}


# --- VRFs ---

needs_vrf = pytest.mark.skipif(
    run("ip link add vrf-probe type vrf table 4101", check=False).returncode != 0, reason="this kernel has no VRFs"
)
run("ip link del vrf-probe", check=False)


@needs_vrf
@pytest.mark.parametrize("local", ["auto", "10.0.0.1"])
def test_a_tun_in_a_vrf(lab, hosts, local):
    """Its routes go where its packets are looked up: to the VRF's table."""
    a, b = hosts
    tund = lab.tund(a, f"{DOMAIN} --local {local} --local-prefix 2001:db8::/48 --route 2001:db8:7::/48=10.0.0.2")
    a.ip("link add red type vrf table 77", "link set red up", "link set tund0 master red")
    wanted = {"fd12:3456:7800::/40", "2001:db8:7::/48", "fd12:3456:7800:1::/64", "2001:db8::/48"}

    def in_table(table: str) -> set[str]:
        shown = json.loads(a.show(f"-j -6 route show table {table}"))
        return {route["dst"] for route in shown} & wanted

    eventually(lambda: in_table("77") == wanted, tund.transcript())
    assert not in_table("main")
    assert a.run(f"ip vrf exec red ping -6 -n -c 1 -W 3 {B}", check=False).returncode == 0 or a.ping(B, options="-I red")
    a.ip("route add 3fff::/32 via ::10.0.0.2 dev tund0 table 77")
    a.ip("link set tund0 nomaster")
    eventually(lambda: in_table("main") == wanted, tund.transcript())
