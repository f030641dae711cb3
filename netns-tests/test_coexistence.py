"""A second tund on one host: what may stand beside the first, and what is refused because packets would be delivered twice.

    host: eth0 10.0.0.1/8 (and 10.0.0.9/8) --- switch --- left 10.0.0.2, right 10.0.0.3
"""

import random
import socket
import sys
import time

import pytest

from lab import PATIENCE, Process
from packets import DOMAIN
from test_privileges import INTRUDER, as_user

OTHER_DOMAIN = "--6rd-prefix fd77::/40 --6rd-relay-prefix 10.0.0.0/8"


@pytest.fixture
def hosts(lab):
    made = lab.underlay({"host": "10.0.0.1/8", "left": "10.0.0.2/8", "right": "10.0.0.3/8"})
    made[0].ip("addr add 10.0.0.9/8 dev eth0")
    return made


def second(host, binary, options: str):
    """Of --check, and of starting for good: both must say the same."""
    done = [host.run(f"{binary} run tund1 {options} {check}", check=False, timeout=5) for check in ("--check", "")]
    assert [each.returncode for each in done] == [1, 1], done
    complaints = [each.stderr.splitlines()[-1].split(": ", 1)[1] for each in done]
    assert "tund1" not in host.show("link show")
    return complaints


REFUSED = [
    ("the same domain", DOMAIN, DOMAIN, "10.0.0.0/8"),
    ("another domain of the same hosts", DOMAIN, OTHER_DOMAIN, "10.0.0.0/8"),
    ("another domain, without addresses", f"{DOMAIN} --address none", f"{OTHER_DOMAIN} --address none", "10.0.0.0/8"),
    ("the same remote", "--remote 10.0.0.2", "--remote 10.0.0.2 --address fd77::1/64", "10.0.0.2"),
    ("any beside IPv4", "--remote 10.0.0.2 --mode any", "--remote 10.0.0.2 --mode ipip", "10.0.0.2"),
    ("a host of the domain", DOMAIN, "--remote 10.0.0.2", "10.0.0.0/8"),
    ("a domain with the remote in it", "--remote 10.0.0.2", DOMAIN, "10.0.0.2"),
    ("the same relay", f"{DOMAIN} --relay 192.0.2.1", "--remote 192.0.2.1", "192.0.2.1"),
    ("on the same device", f"{DOMAIN} --dev eth0", OTHER_DOMAIN, "10.0.0.0/8"),
]


@pytest.mark.parametrize("first, options, peers", [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(lab, hosts, binary, first, options, peers):
    host = hosts[0]
    lab.tund(host, f"--local 10.0.0.1 {first}")
    for complaint in second(host, binary, f"--local 10.0.0.1 {options}"):
        assert "10.0.0.1" in complaint and "another tund" in complaint and f"from {peers} " in complaint


def test_a_device_of_several_names(lab, hosts, binary):
    """An alternative name has up to 127 bytes, more than a socket's name holds."""
    host = hosts[0]
    name = "n" * 127
    host.ip(f"link property add dev eth0 altname {name}")
    lab.tund(host, f"{DOMAIN} --local 10.0.0.1 --dev {name}")
    host.ip("link set eth0 name wan0")
    for complaint in second(host, binary, f"{OTHER_DOMAIN} --local 10.0.0.1 --dev wan0"):
        assert "another tund" in complaint


def test_different_remotes_share_an_address(lab, hosts):
    host, *peers = hosts
    for number, peer in enumerate(peers):
        lab.tund(host, f"--local 10.0.0.1 --remote 10.0.0.{number + 2} --address fd77:{number}::1/64", name=f"tund{number}")
        lab.tund(peer, f"--remote 10.0.0.1 --address fd77:{number}::2/64")
    for number, peer in enumerate(peers):
        assert host.ping(f"fd77:{number}::2") and peer.ping(f"fd77:{number}::1")


ALLOWED = [
    ("another address", DOMAIN, "--local 10.0.0.9 --6rd-prefix fd77::/40 --6rd-relay-prefix 10.0.0.0/8"),
    ("IPv4 beside IPv6", "--remote 10.0.0.2", "--local 10.0.0.1 --remote 10.0.0.2 --mode ipip"),
    ("a remote outside the domain", DOMAIN, "--local 10.0.0.1 --remote 192.0.2.1"),
]


@pytest.mark.parametrize("first, options", [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_allowed(lab, hosts, first, options):
    host = hosts[0]
    lab.tund(host, f"--local 10.0.0.1 {first}")
    lab.tund(host, options, name="tund1")


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_the_next_one_starts_at_once(lab, hosts, end):
    host = hosts[0]
    first = lab.tund(host, f"--local 10.0.0.1 {DOMAIN}")
    first.stop() if end == "stopped" else first.kill()
    lab.tund(host, f"--local 10.0.0.1 {OTHER_DOMAIN}", name="tund1")


def test_a_name_alone_keeps_nobody_away(lab, hosts):
    """Every user can make a socket with the name by which tund knows another."""
    host = hosts[0]
    with host.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one, host.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        one.bind("\0tund/ip6ip/10.0.0.1/0.0.0.0/0/")
        other.bind("\0tund/ip6ip/10.0.0.1/10.0.0.0/8/")
        lab.tund(host, f"--local 10.0.0.1 {DOMAIN}")


#: Binds each argument as an abstract name, and keeps them until it is killed.
HOLD_NAMES = r"""
import socket, sys, time
held = []
for line in sys.argv[1:]:
    held.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    held[-1].bind(b"\0" + line.encode("latin-1", "surrogateescape"))
print("bound", flush=True)
time.sleep(1000)
"""


def intruder_with(lab, host, names: list[str]) -> Process:
    started = lab.process(host, [*as_user(INTRUDER), sys.executable, "-c", HOLD_NAMES, *names])
    started.wait_until(lambda: started.out == ["bound"], "names bound")
    return started


def test_another_users_name_does_not_count_beside_a_tunnels_socket(lab, hosts):
    """The address has a raw socket, the first tunnel's; but it is not the intruder's."""
    host = hosts[0]
    lab.tund(host, "--local 10.0.0.1 --remote 192.0.2.1")
    intruder_with(lab, host, ["tund/ip6ip/10.0.0.1/10.0.0.0/8/", "tund/ip6ip/10.0.0.1/10.0.0.0/8//1", "tund/any/10.0.0.1/0.0.0.0/0//0"])
    lab.tund(host, f"--local 10.0.0.1 {DOMAIN}", name="tund1")


def test_a_name_that_is_taken_hides_no_tunnel(lab, hosts, binary):
    """Whoever holds a tunnel's name in advance, and lets go of it later, has kept nobody from seeing the tunnel."""
    host = hosts[0]
    intruder = intruder_with(lab, host, ["tund/ip6ip/10.0.0.1/10.0.0.0/8/", "tund/ip6ip/10.0.0.1/10.0.0.0/8//1"])
    lab.tund(host, f"--local 10.0.0.1 {DOMAIN}")
    intruder.kill()
    for complaint in second(host, binary, f"--local 10.0.0.1 {DOMAIN}"):
        assert "another tund" in complaint


def test_thousands_of_strange_names_are_passed_over(lab, hosts, binary):
    host = hosts[0]
    some = random.Random(1)
    strange = [f"tund/{number}/" + "".join(chr(some.randrange(1, 256)) for _ in range(some.randrange(90))) for number in range(900)]
    strange += [f"tund/ip6ip/10.0.0.1/10.0.0.0/{number}/" for number in range(30, 900)]
    strange += ["tund/", "tund/////", "tund/ip6ip/10.0.0.1/10.0.0.0/8//" + "f" * 60, "x" * 107]
    intruder_with(lab, host, strange)
    lab.tund(host, f"--local 10.0.0.1 {DOMAIN}")
    for complaint in second(host, binary, f"--local 10.0.0.1 {DOMAIN}"):
        assert "another tund" in complaint


TOGETHER = [
    ("the same", DOMAIN, DOMAIN),
    ("overlapping, several claims", f"{DOMAIN} --relay 192.0.2.1 --relay 192.0.2.2", "--remote 192.0.2.1"),
]


@pytest.mark.parametrize("options", [row[1:] for row in TOGETHER], ids=[row[0] for row in TOGETHER])
def test_of_two_that_start_together_one_runs(lab, hosts, binary, options):
    """Neither sees the other when it looks before it opens its sockets. Many pairs, since the moment is short."""
    host = hosts[0]
    for _ in range(25):
        pair = [lab.process(host, f"{binary} run tund{number} --local 10.0.0.1 --address none --workers 1 {wish}")
                for number, wish in enumerate(options)]  # fmt: skip
        end = time.monotonic() + PATIENCE
        while not all(is_decided(each) for each in pair):
            assert time.monotonic() < end, [each.transcript() for each in pair]
            time.sleep(0.01)
        ready = [each for each in pair if is_ready(each)]
        assert len(ready) == 1, [each.transcript() for each in pair]
        for each in pair:
            if each in ready:
                each.kill()
            else:
                assert each.wait() == 1 and "another tund" in each.err[-1]


def is_ready(process: Process) -> bool:
    return any("ready" in line for line in process.err)


def is_decided(process: Process) -> bool:
    return is_ready(process) or not process.running
