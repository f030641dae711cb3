"""tund beside the kernel's own tunnels on one host: what the kernel would do with tund's packets is said, or refused.

    host: eth0 10.0.0.1/8, perhaps sit interfaces --- switch --- peer 10.0.0.2
"""

import pytest

from lab import run
from packets import DOMAIN, HERE, ICMP, IP, PEER, THERE, in_ipv4, inner


@pytest.fixture(scope="module", autouse=True)
def ipip():
    """The kernel's other tunnel of this kind, which shares a module with sit."""
    run(["modprobe", "ipip"])


@pytest.fixture
def hosts(lab):
    return lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})


#: `ip link add ...`, and tund's options.
REFUSED = [
    ("sit1 type sit mode ip6ip local 10.0.0.1 remote 10.0.0.2", DOMAIN),
    ("sit1 type sit mode any local 10.0.0.1 remote any", DOMAIN),
    ("sit1 type sit mode ip6ip local any remote 10.0.0.2", "--remote 10.0.0.2"),
    ("sit1 type sit mode ip6ip local 10.0.0.1 6rd-prefix fd77::/40 6rd-relay_prefix 10.0.0.0/8", DOMAIN),
    ("sit1 type ipip local 10.0.0.1 remote 10.0.0.2", "--remote 10.0.0.2 --mode any"),
    ("sit1 type sit mode ip6ip local 10.0.0.1 remote 192.0.2.1", f"{DOMAIN} --relay 192.0.2.1"),
]


@pytest.mark.parametrize("made, options", REFUSED)
def test_the_same_packets(hosts, lab, binary, made, options):
    """Each would be delivered twice. The error names the interface and how to be rid of it."""
    host, _ = hosts
    host.ip(f"link add {made}", "link set sit1 up")
    for check in ("--check", ""):
        done = host.run(f"{binary} run --local 10.0.0.1 {options} {check}", check=False, timeout=60)
        assert done.returncode == 1, done.stderr
        assert "sit1" in done.stderr.splitlines()[-1] and "ip link del sit1" in done.stderr.splitlines()[-1], done.stderr
    host.ip("link set sit1 down")
    lab.tund(host, f"--local 10.0.0.1 {options}")


def test_the_wildcard(hosts, lab, binary):
    """sit0 cannot be deleted, and takes everything while it is up."""
    host, _ = hosts
    host.ip("link set sit0 up")
    done = host.run(f"{binary} run --check --local 10.0.0.1 {DOMAIN}", check=False, timeout=60)
    assert done.returncode == 1 and done.stderr.rstrip().endswith("(ip link set sit0 down)"), done.stderr


ALLOWED = [
    ("sit1 type sit mode ip6ip local 10.0.0.1 remote 192.0.2.1", DOMAIN),
    ("sit1 type sit mode ip6ip local 10.0.0.9 remote any", DOMAIN),
    ("sit1 type sit mode ip6ip local 10.0.0.1 remote 10.0.0.3", "--remote 10.0.0.2"),
    ("sit1 type sit mode ipip local 10.0.0.1 remote 10.0.0.2", "--remote 10.0.0.2"),
]


@pytest.mark.parametrize("made, options", ALLOWED)
def test_other_packets(hosts, lab, made, options):
    """Both can work. But what no sit interface takes, the kernel answers although tund does take it: that is warned of."""
    host, _ = hosts
    host.ip(f"link add {made}", "link set sit1 up")
    tund = lab.tund(host, f"--local 10.0.0.1 {options}")
    assert [line for line in tund.err if "warning" in line and "port unreachable" in line and "rmmod" in line], tund.transcript()


def test_what_is_warned_of(hosts, lab):
    """The module alone: a packet is delivered, and its sender told that it was not."""
    host, peer = hosts
    lab.tund(host, DOMAIN)
    tun = lab.packet_socket(host, "tund0")
    mac = host.run("cat /sys/class/net/eth0/address").stdout.strip()
    wire = lab.packet_socket(peer, "eth0", mac)
    packet = inner(THERE, HERE)
    wire.send(in_ipv4(packet, PEER))
    assert tun.receive_until(lambda seen: seen == bytes(packet))[1]
    _, answer = wire.receive_until(lambda seen: seen[9] == 1)
    assert (IP(answer)[ICMP].type, IP(answer)[ICMP].code) == (3, 3)
