"""A tunnel whose address is not there yet: boot before DHCP, a VRRP standby.

    a: eth0, without the tunnel's address ------ switch ------ b 10.0.0.2
"""

import json
import re
import signal
import time

import pytest

from lab import run
from packets import DOMAIN, PREFIX, RELAY_PREFIX
from sixrd import own_address
from test_privileges import NET_ADMIN, status
from test_renumbering import addresses, eventually, pings, says

VIRTUAL = "10.0.0.100"
B = str(own_address(PREFIX, RELAY_PREFIX, "10.0.0.2"))


def overlay(address: str) -> str:
    return str(own_address(PREFIX, RELAY_PREFIX, address))


@pytest.fixture
def hosts(lab):
    """a has an address of its own; b carries already."""
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    lab.tund(b, DOMAIN)
    return a, b


def waits(lab, host, options: str, **arguments):
    return lab.tund(host, options, until="waits", **arguments)


#: How it is started, what takes the address away before, and what brings it.
CASES = {
    "given": (f"--local {VIRTUAL}", [], f"addr add {VIRTUAL}/8 dev eth0"),
    "given, for a load balancer": (f"--local {VIRTUAL}", [], f"route add local {VIRTUAL} dev lo"),
    "auto": ("", ["addr flush dev eth0"], f"addr add {VIRTUAL}/8 dev eth0"),
    "auto, of a device": ("--dev eth0", ["addr flush dev eth0", "link add other type bridge", "link set other up",
                                         "addr add 10.7.7.7/32 dev other"], f"addr add {VIRTUAL}/8 dev eth0"),
}  # fmt: skip


@pytest.mark.parametrize("local, before, comes", CASES.values(), ids=CASES)
def test_it_waits_and_then_carries(lab, hosts, local, before, comes):
    """While it waits: its sockets are open, so CAP_NET_RAW is gone, the TUN is up and has no address, and no other process
    sees an error. When the address comes, it is as if it had been there."""
    a, b = hosts
    if before:
        a.ip(*before)
    tund = waits(lab, a, f"{DOMAIN} {local} --workers 2")
    [link] = json.loads(a.show("-j addr show dev tund0"))
    assert "UP" in link["flags"] and not link["addr_info"]
    assert "tund0" not in a.show("-6 route show") + a.show("-6 route show type unreachable")
    assert [int(status(thread)["CapPrm"], 16) for thread in tund.threads()] == [NET_ADMIN]
    assert not b.ping(overlay(VIRTUAL), options="-W 0.3")
    a.ip(comes)
    took = eventually(lambda: any("is ready" in line for line in tund.err), "not ready")
    assert took < 2, f"{took} s\n{tund.transcript()}"
    if "route" in comes:
        hardware = a.run("cat /sys/class/net/eth0/address").stdout.strip()
        b.ip(f"neigh replace {VIRTUAL} lladdr {hardware} dev eth0 nud permanent")
    assert a.ping(B, count=3) and b.ping(overlay(VIRTUAL), count=3), tund.transcript()
    assert addresses(a) == {overlay(VIRTUAL)}
    assert len(tund.threads()) == 3


def test_it_is_said_once_what_is_missing(lab, hosts):
    a, _ = hosts
    tund = waits(lab, a, f"{DOMAIN} --local {VIRTUAL}")
    for number in range(5):
        a.ip(f"addr add 10.0.1.{number + 1}/8 dev eth0")
        time.sleep(0.3)
    [line] = [line for line in tund.err if VIRTUAL in line]
    assert re.search(rf"warning.*no interface has {VIRTUAL} \(this host has 10\.0\.0\.1 \(eth0\)\).*waits", line), line


def test_an_address_that_anybody_may_bind_is_not_there(lab, hosts):
    """net.ipv4.ip_nonlocal_bind, which VRRP daemons set: binding says nothing then."""
    a, _ = hosts
    a.sysctl(ipv4__ip_nonlocal_bind=1)
    waits(lab, a, f"{DOMAIN} --local {VIRTUAL}")


def test_the_address_goes_again(lab, hosts):
    a, _ = hosts
    tund = waits(lab, a, f"{DOMAIN} --local {VIRTUAL}")
    a.ip(f"addr add {VIRTUAL}/8 dev eth0")
    eventually(lambda: pings(a, B), "no answer")
    a.ip(f"addr del {VIRTUAL}/8 dev eth0")
    assert says(tund, f"warning.*no interface has the local address {VIRTUAL} any more")
    a.ip(f"addr add {VIRTUAL}/8 dev eth0")
    assert says(tund, f"info.*{VIRTUAL} is back")
    eventually(lambda: pings(a, B), "no answer")


def test_no_wait_refuses(hosts, binary):
    a, _ = hosts
    for options in (f"--local {VIRTUAL}", "--dev lo"):
        done = a.run(f"{binary} run {DOMAIN} {options} --no-wait", check=False)
        assert done.returncode == 1 and "tund0" not in a.show("link show")
        assert "10.0.0.1 (eth0)" in done.stderr.splitlines()[-1], done.stderr


def test_check_says_that_it_would_wait(hosts, binary):
    a, _ = hosts
    done = a.run(f"{binary} run {DOMAIN} --local {VIRTUAL} --check")
    assert re.search(rf"would wait: .*{VIRTUAL}.*10\.0\.0\.1", done.stdout), done.stdout
    assert a.run(f"{binary} run {DOMAIN} --local {VIRTUAL} --check --no-wait", check=False).returncode == 1


def test_what_time_cannot_mend_is_refused(hosts, binary):
    """A choice between addresses is the operator's, and an interface has to exist."""
    a, _ = hosts
    a.ip("link add other type bridge", "link set other up", "addr add 192.168.7.1/24 dev other", "route flush table main")
    a.ip("route add 192.0.2.0/24 dev eth0")
    for options, words in (("", "there are 2"), ("--dev nosuch0", "no such interface")):
        done = a.run(f"{binary} run --6rd-prefix fd00::/32 {options}", check=False)
        assert done.returncode == 1 and words in done.stderr.splitlines()[-1], done.stderr


def test_somebody_else_has_it_when_it_comes(lab, hosts, binary):
    """As at a start: it ends, and says who."""
    a, _ = hosts
    tund = waits(lab, a, f"{DOMAIN} --local {VIRTUAL}", name="tund1")
    first = waits(lab, a, f"--local {VIRTUAL} --remote 10.0.0.2", name="tund0")
    a.ip(f"addr add {VIRTUAL}/8 dev eth0")
    eventually(lambda: not (first.running and tund.running), "both run")
    loser = tund if first.running else first
    assert loser.wait() == 1
    assert "another tund" in loser.err[-1], loser.transcript()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_can_be_stopped_and_asked(lab, hosts, number):
    a, _ = hosts
    tund = waits(lab, a, f"{DOMAIN} --local {VIRTUAL}")
    assert tund.counters()["uplink.packets"] == 0
    tund.stop(by=number)
    assert "tund0" not in a.show("link show")


def test_the_tun_is_deleted_meanwhile(lab, hosts):
    a, _ = hosts
    tund = waits(lab, a, f"{DOMAIN} --local {VIRTUAL}")
    a.ip("link del tund0")
    assert tund.wait() == 1 and "was deleted" in tund.err[-1], tund.transcript()


def test_without_restoring_no_capability_stays(lab, hosts):
    a, _ = hosts
    tund = waits(lab, a, f"{DOMAIN} --local {VIRTUAL} --no-restore")
    a.ip(f"addr add {VIRTUAL}/8 dev eth0")
    eventually(lambda: any("is ready" in line for line in tund.err), "not ready")
    assert not any(int(status(thread)["CapPrm"], 16) for thread in tund.threads())
    assert a.ping(B)


def test_in_another_namespace(lab, hosts):
    """What the underlay's namespace says is heard there, without the right to go there again."""
    a, b = hosts
    pod = lab.namespace("pod")
    tund = waits(lab, pod, f"{DOMAIN} --local {VIRTUAL} --underlay-netns {a.name}")
    assert [int(status(thread)["CapPrm"], 16) for thread in tund.threads()] == [NET_ADMIN]
    a.ip(f"addr add {VIRTUAL}/8 dev eth0")
    eventually(lambda: pings(pod, B), "no answer")
    assert b.ping(overlay(VIRTUAL)) and "tund0" not in a.show("link show")


def test_under_another_uid(lab, hosts):
    """--user is somebody else before the address comes, and everything is there for what comes after."""
    a, b = hosts
    tund = waits(lab, a, f"{DOMAIN} --local {VIRTUAL} --user 65534")
    assert {status(thread)["Uid"].split()[0] for thread in tund.threads()} == {"65534"}
    a.ip(f"addr add {VIRTUAL}/8 dev eth0")
    eventually(lambda: pings(a, B), "no answer")
    assert b.ping(overlay(VIRTUAL))
