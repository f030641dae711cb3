"""What tund may do once it runs: nothing more than it has open. And who else may read the overlay: nobody.

    host 10.0.0.1: tund as root or as nobody ------ switch ------ peer 10.0.0.2
      |
    an intruder: another uid, with /dev/net/tun open to all
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest

import traffic
from lab import PATIENCE, run
from packets import DOMAIN, HERE, THERE

NOBODY, INTRUDER = 65534, 1

#: `ip netns exec` gives each command a mount namespace of its own: this device node is seen by that command only.
OPEN_DEVICE = 'mount -t tmpfs tund /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "$@"'


def device_for_all() -> list[str]:
    return ["sh", "-c", OPEN_DEVICE, "sh"]


def as_user(uid: int, *capabilities: str) -> list[str]:
    """Becomes `uid` with just these capabilities. Changing the uid clears the death signal, so it is set again."""
    some = ",".join(f"+{name}" for name in capabilities)
    keep = ["--inh-caps", f"-all,{some}", "--ambient-caps", f"-all,{some}"] if some else ["--inh-caps", "-all"]
    return ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", *keep, "--pdeathsig", "KILL", "--"]


#: How tund is started.
AS = {
    "root": [],
    "nobody": [*device_for_all(), *as_user(NOBODY, "net_admin", "net_raw")],
}


@pytest.fixture(scope="module")
def readable_binary(binary):
    """A copy where every user can get at it."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield shutil.copy(binary, directory)


#: CAP_NET_ADMIN, as a set.
NET_ADMIN = 1 << 12
#: What the first thread keeps, to put back what others take from the TUN.
KEEPS = {"--local auto": NET_ADMIN, "--local 10.0.0.1": NET_ADMIN, "--no-restore": 0}


@pytest.fixture(params=AS)
def running(lab, readable_binary, request):
    """(host, peer, the host's tund, its uid)"""
    host, peer = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    tund = lab.tund(host, f"{DOMAIN} --workers 2", binary=readable_binary, through=AS[request.param])
    lab.tund(peer, DOMAIN)
    return host, peer, tund, 0 if request.param == "root" else NOBODY


def status(thread: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line)


@pytest.mark.parametrize("local", KEEPS)
@pytest.mark.parametrize("user", AS)
def test_capabilities_are_dropped(lab, readable_binary, user, local):
    """The threads that touch packets have none, and the tunnel carries without them. (The first one's id is the process's.)"""
    host, peer = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    tund = lab.tund(host, f"{DOMAIN} --workers 2 {local}", binary=readable_binary, through=AS[user])
    lab.tund(peer, DOMAIN)
    for moment in ("ready", "after traffic"):
        threads = tund.threads()
        assert len(threads) == 3, "two workers and the one that started first"
        for thread in threads:
            values = status(thread)
            held = {name: int(values[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")}
            kept = KEEPS[local] if int(thread.name) == tund.pid else 0
            assert held == {"CapEff": kept, "CapPrm": kept, "CapInh": 0, "CapAmb": 0}, f"{moment}: thread {thread.name}"
            assert values["Uid"].split() == [str(0 if user == "root" else NOBODY)] * 4
        assert host.ping(THERE) and peer.ping(HERE)
        assert traffic.tcp(host, peer, THERE, size=1 << 20)


#: Nobody's in /etc/passwd, on any host.
USER, GROUP = 54242, 54243


def is_only(thread: Path, uid: int, gid: int) -> bool:
    """Real, effective, saved and filesystem ids, and no further group."""
    values = status(thread)
    return values["Uid"].split() == [str(uid)] * 4 and values["Gid"].split() == [str(gid)] * 4 and not values["Groups"].strip()


@pytest.mark.parametrize("local", KEEPS)
@pytest.mark.parametrize("user, uid, gid", [(f"{USER}:{GROUP}", USER, GROUP), ("nobody:daemon", NOBODY, 1)], ids=["numbers", "names"])
def test_becomes_another_user(lab, binary, user, uid, gid, local):
    """All threads, from root with root's groups; what the control thread keeps is the same as without --user."""
    host, peer = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    groups = ["setpriv", "--groups", "0,4,27", "--pdeathsig", "KILL", "--"]
    tund = lab.tund(host, f"{DOMAIN} --workers 2 {local} --user {user}", through=groups)
    lab.tund(peer, DOMAIN)
    assert host.ping(THERE) and peer.ping(HERE)
    assert traffic.tcp(host, peer, THERE, size=1 << 20)
    threads = tund.threads()
    assert len(threads) == 3
    for thread in threads:
        assert is_only(thread, uid, gid), (thread / "status").read_text()
        values = status(thread)
        held = {name: int(values[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")}
        kept = KEEPS[local] if int(thread.name) == tund.pid else 0
        assert held == {"CapEff": kept, "CapPrm": kept, "CapInh": 0, "CapAmb": 0, "CapBnd": 0}, f"thread {thread.name}"
        assert values["NoNewPrivs"] == "1"
    assert not [line for line in tund.err if "uid 0" in line]


def test_the_tun_is_that_users(lab, binary):
    [host] = lab.underlay({"host": "10.0.0.1/8"})
    lab.tund(host, f"{DOMAIN} --user {USER}:{GROUP}")
    assert host.run("cat /sys/class/net/tund0/owner").stdout.strip() == str(USER)
    assert attach(host, *as_user(INTRUDER)) == "EPERM"
    assert attach(host, "setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--") == "EPERM", "uid 0 in name only"
    assert attach(host, *as_user(USER)) == "attached"


def test_other_processes_of_that_user_see_nothing_of_it(lab, binary):
    [host] = lab.underlay({"host": "10.0.0.1/8"})
    tund = lab.tund(host, f"{DOMAIN} --user {USER}:{GROUP}")
    for secret in ("environ", "maps", "fd"):
        done = host.run([*as_user(USER), "ls" if secret == "fd" else "cat", f"/proc/{tund.pid}/{secret}"], check=False)
        assert "Permission denied" in done.stderr, secret


def test_follows_the_host_as_another_user(lab, binary):
    """Renumbering, and what goes with the link: addresses, routes and settings of the TUN are written long after the change."""
    host, peer = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    tund = lab.tund(host, f"{DOMAIN} --workers 2 --user {USER}:{GROUP}")
    lab.tund(peer, DOMAIN)
    host.ip("addr add 10.0.0.7/8 dev eth0", "addr del 10.0.0.1/8 dev eth0", "addr replace 10.0.0.7/8 dev eth0")
    tund.wait_until(lambda: any("renumbered" in line for line in tund.err), "line about the new address")
    assert peer.ping("fd12:3456:7800:7::1") and host.ping(THERE)
    host.ip("link set tund0 down", "link set tund0 up")
    end = time.monotonic() + PATIENCE
    while "fd12:3456:7800:7::1" not in host.show("addr show dev tund0"):
        assert time.monotonic() < end, tund.transcript()
    assert host.ping(THERE)


def test_in_another_network_namespace_as_another_user(lab, binary):
    host, peer = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    pod = lab.namespace("pod")
    tund = lab.tund(pod, f"{DOMAIN} --underlay-netns {host.name} --user {USER}:{GROUP}")
    lab.tund(peer, DOMAIN)
    assert pod.ping(THERE)
    for thread in tund.threads():
        kept = NET_ADMIN if int(thread.name) == tund.pid else 0
        assert is_only(thread, USER, GROUP) and int(status(thread)["CapPrm"], 16) == kept


@pytest.mark.parametrize("groups", ["--clear-groups", f"--groups={USER}"], ids=["no group", "its own group"])
def test_who_is_that_user_already_needs_no_further_capability(lab, readable_binary, groups):
    """As service managers start it: they may list its own group among the further ones, too."""
    [host] = lab.underlay({"host": "10.0.0.1/8"})
    user = [groups if word == "--clear-groups" else word for word in as_user(USER, "net_admin", "net_raw")]
    tund = lab.tund(host, f"{DOMAIN} --user {USER}:{USER}", binary=readable_binary, through=[*device_for_all(), *user])
    assert all(status(thread)["Uid"].split() == [str(USER)] * 4 for thread in tund.threads())


@pytest.mark.parametrize("capabilities", [[], ["setuid"], ["setgid"]], ids=["neither", "only setuid", "only setgid"])
def test_without_the_capabilities_to_become_another_user(lab, readable_binary, capabilities):
    [host] = lab.underlay({"host": "10.0.0.1/8"})
    user = as_user(NOBODY, "net_admin", "net_raw", *capabilities)
    command = [*device_for_all(), *user, readable_binary, "run", "--user", f"{USER}:{GROUP}"]
    done = host.run(command, check=False)
    assert done.returncode == 1
    for missing in {"setuid", "setgid"} - set(capabilities):
        assert f"CAP_{missing.upper()}" in done.stderr.splitlines()[-1]
    assert "tund0" not in host.show("link show")


#: Its root is the only user there. A wire, and an address on it.
USER_NAMESPACE = ["unshare", "-Urn", "sh", "-c", "ip link add eth0 type veth peer name far && ip addr add 10.0.0.1/8 dev eth0 &&"
                  ' ip link set eth0 up && ip link set far up && exec "$@"', "sh"]  # fmt: skip


def test_a_user_that_the_user_namespace_does_not_have(binary):
    done = run([*USER_NAMESPACE, binary, "run", "--local", "10.0.0.1", "--user", f"{USER}:{GROUP}"], check=False)
    assert done.returncode == 1 and "uid_map" in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("user, warned", [("root", 1), ("nobody", 0)])
def test_a_process_that_stays_root_says_so(lab, readable_binary, user, warned):
    [host] = lab.underlay({"host": "10.0.0.1/8"})
    tund = lab.tund(host, DOMAIN, binary=readable_binary, through=AS[user])
    assert len([line for line in tund.err if "warning" in line and "uid 0" in line and "--user" in line]) == warned


def test_four_workers_fit_into_the_usual_limit_of_locked_memory(lab, readable_binary):
    """8 MiB, for a user that has nothing else running: io_uring's rings count against it."""
    host, peer = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    user = as_user(40000 + os.getpid() % 20000, "net_admin", "net_raw")
    limited = [*device_for_all(), "prlimit", f"--memlock={8 << 20}", *user]
    lab.tund(host, f"{DOMAIN} --workers 4", binary=readable_binary, through=limited)
    lab.tund(peer, DOMAIN)
    assert host.ping(THERE)


@pytest.mark.parametrize("kilobytes", [0, 200, 800, 1060, 1080, 1100])
def test_too_little_locked_memory_is_named(lab, readable_binary, kilobytes):
    """Wherever in the set-up of its rings it runs out: for four workers, which need 1,104 KiB."""
    [host] = lab.underlay({"host": "10.0.0.1/8"})
    user = as_user(40000 + os.getpid() % 20000, "net_admin", "net_raw")
    limited = [*device_for_all(), "prlimit", f"--memlock={kilobytes << 10}", *user]
    done = host.run([*limited, readable_binary, "run", *DOMAIN.split(), "--workers", "4"], check=False)
    assert done.returncode == 1 and "ulimit -l" in done.stderr.splitlines()[-1], done.stderr


ATTACH = """
import errno, fcntl, struct
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE, TUNSETIFF = 0x0001, 0x1000, 0x4000, 0x0100, 0x400454CA
with open("/dev/net/tun", "r+b", buffering=0) as tun:
    try:
        flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tund0", flags))
        print("attached")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def attach(host, *through: str) -> str:
    return host.run([*device_for_all(), *through, sys.executable, "-c", ATTACH]).stdout.strip()


def test_nobody_else_can_attach_a_queue_to_the_tun(running):
    host, _, _, uid = running
    assert attach(host, *as_user(INTRUDER)) == "EPERM"
    assert attach(host, *as_user(INTRUDER, "net_raw")) == "EPERM"
    if uid == 0:
        assert attach(host, *as_user(NOBODY)) == "EPERM"
    else:
        assert attach(host, "setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--") == "EPERM", "uid 0 in name only"
    assert host.ping(THERE)


def test_the_attempt_itself_is_right(running):
    """With CAP_NET_ADMIN the same ioctl succeeds: EPERM above is about the user."""
    host, *_ = running
    assert attach(host) == "attached"


@pytest.mark.parametrize("capabilities", [[], ["net_admin"], ["net_raw"]], ids=["none", "only net_admin", "only net_raw"])
def test_without_privileges(lab, readable_binary, capabilities):
    """One line says what is missing; nothing is left behind."""
    [host, _] = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    command = [*device_for_all(), *as_user(NOBODY, *capabilities), readable_binary, "run"]
    done = host.run(command, check=False)
    assert done.returncode == 1, done.stderr
    complaints = [line for line in done.stderr.splitlines() if " info " not in line and " warning " not in line]
    [complaint] = complaints
    for missing in {"net_admin", "net_raw"} - set(capabilities):
        assert f"CAP_{missing.upper()}" in complaint
    assert "tund0" not in host.show("link show")


def test_without_access_to_the_device(lab, readable_binary):
    """The capabilities are here, but /dev/net/tun is root's: the message names the device."""
    [host, _] = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    private = 'mount -t tmpfs tund /dev/net && mknod -m 600 /dev/net/tun c 10 200 && exec "$@"'
    command = ["sh", "-c", private, "sh", *as_user(NOBODY, "net_admin", "net_raw"), readable_binary, "run"]
    done = host.run(command, check=False)
    assert done.returncode == 1
    assert "/dev/net/tun" in done.stderr.splitlines()[-1]
