"""The tunnel in one network namespace, its IPv4 side in another: --underlay-netns.

    pod: lo, tund0, no IPv4 at all        started here
    host: eth0 10.0.0.1/8 --- switch --- peer 10.0.0.2 (tund)
"""

import pytest

import traffic
from lab import run
from packets import DOMAIN, HERE, THERE
from test_privileges import NET_ADMIN, NOBODY, as_user, device_for_all, readable_binary, status  # noqa: F401


@pytest.fixture
def hosts(lab):
    """(pod, host, peer)"""
    host, peer = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    pod = lab.namespace("pod")
    pod.ip("addr flush dev lo scope host", "link set lo up")
    lab.tund(peer, DOMAIN)
    return pod, host, peer


def by_descriptor(host) -> list[str]:
    return ["sh", "-c", f'exec "$@" 3</run/netns/{host.name}', "sh"]


WAYS = {
    "name": lambda host: ([], host.name),
    "path": lambda host: ([], f"/run/netns/{host.name}"),
    "descriptor": lambda host: (by_descriptor(host), "fd:3"),
}


@pytest.mark.parametrize("way", WAYS)
def test_carries(lab, hosts, way):
    """Both directions; local address, MTU and broadcast address are the underlay's, the interface is the pod's."""
    pod, host, peer = hosts
    through, netns = WAYS[way](host)
    host.ip("link set eth0 mtu 1400")
    lab.tund(pod, f"{DOMAIN} --underlay-netns {netns} --workers 2", through=through)
    assert "inet " not in pod.show("addr show")
    assert "mtu 1380" in pod.show("link show tund0") and "tund0" not in host.show("link show")
    assert pod.ping(THERE) and peer.ping(HERE)
    assert traffic.tcp(pod, peer, THERE, size=1 << 20) and traffic.tcp(peer, pod, HERE, size=1 << 20)
    assert not host.ping(THERE, options="-W 1")


def test_survives_its_name(lab, hosts):
    """The sockets hold the underlay's namespace; nothing asks for the name again."""
    pod, host, _ = hosts
    lab.tund(pod, f"{DOMAIN} --underlay-netns fd:3", through=by_descriptor(host))
    run(["ip", "netns", "del", host.name])
    assert pod.ping(THERE)


@pytest.mark.parametrize("uid", [0, NOBODY], ids=["root", "nobody"])
@pytest.mark.parametrize("option, kept", [("", NET_ADMIN), ("--no-restore", 0)], ids=["restores", "does not"])
def test_no_right_in_the_other_namespace_is_kept(lab, hosts, readable_binary, uid, option, kept):  # noqa: F811
    """CAP_NET_ADMIN is for the pod's own TUN."""
    pod, host, _ = hosts
    user = [*device_for_all(), *as_user(uid, "net_admin", "net_raw", "sys_admin")] if uid else []
    tund = lab.tund(
        pod, f"{DOMAIN} --underlay-netns {host.name} --workers 2 {option}", binary=readable_binary, through=user)
    assert pod.ping(THERE)
    for thread in tund.threads():
        values = status(thread)
        mine = kept if int(thread.name) == tund.pid else 0
        assert [int(values[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [mine, mine, 0, 0], values


def test_without_the_capability(lab, hosts, readable_binary):  # noqa: F811
    pod, host, _ = hosts
    user = [*device_for_all(), *as_user(NOBODY, "net_admin", "net_raw")]
    for check in ("", "--check"):
        done = pod.run([*user, readable_binary, "run", "--underlay-netns", host.name, *check.split()], check=False)
        assert done.returncode == 1 and "CAP_SYS_ADMIN" in done.stderr.splitlines()[-1], done.stderr


WRONG = [
    ("nosuch", "nosuch", "ip netns list"),
    ("/nosuch", "/nosuch", "No such file"),
    ("/dev/null", "/dev/null", "no network namespace"),
    ("fd:17", "fd:17", "handed over"),
    ("fd:0", "fd:0", "no network namespace"),
]


@pytest.mark.parametrize("value, named, remedy", WRONG, ids=[row[0] for row in WRONG])
def test_wrong(hosts, binary, value, named, remedy):
    done = hosts[0].run([binary, "run", "--underlay-netns", value], check=False)
    assert done.returncode == 1 and named in done.stderr and remedy in done.stderr, done.stderr


def test_errors_of_the_underlay_count(lab, hosts):
    """A failure to send happens in the other namespace and is told as if it were here."""
    pod, host, _ = hosts
    tund = lab.tund(pod, f"{DOMAIN} --underlay-netns {host.name}")
    host.ip("route add unreachable 10.0.0.9")
    pod.ping("fd12:3456:7800:9::1", options="-W 1")
    tund.counters_once(lambda counters: counters["underlay-send.EHOSTUNREACH"])


def test_another_tund_in_the_underlay(lab, hosts, binary):
    """The packets are the underlay's, and so is the claim to them."""
    pod, host, _ = hosts
    lab.tund(host, DOMAIN)
    done = pod.run(f"{binary} run {DOMAIN} --underlay-netns {host.name}", check=False)
    assert done.returncode == 1 and "another tund" in done.stderr, done.stderr


def test_without_it_the_pod_has_no_underlay(lab, hosts, binary):
    assert hosts[0].run(f"{binary} run {DOMAIN} --no-wait", check=False).returncode == 1
