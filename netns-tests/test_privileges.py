"""What tund may do once it runs: nothing more than it has open. And who else may read the overlay: nobody.

    host 10.0.0.1: tund as root or as nobody ------ switch ------ peer 10.0.0.2
      |
    an intruder: another uid, with /dev/net/tun open to all
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

import traffic
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
#: What the first thread keeps: it may have to renumber the TUN only if nobody said which local address to use.
KEEPS = {"--local auto": NET_ADMIN, "--local 10.0.0.1": 0}


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


def test_four_workers_fit_into_the_usual_limit_of_locked_memory(lab, readable_binary):
    """8 MiB, for a user that has nothing else running: io_uring's rings count against it."""
    host, peer = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    user = as_user(40000 + os.getpid() % 20000, "net_admin", "net_raw")
    limited = [*device_for_all(), "prlimit", f"--memlock={8 << 20}", *user]
    lab.tund(host, f"{DOMAIN} --workers 4", binary=readable_binary, through=limited)
    lab.tund(peer, DOMAIN)
    assert host.ping(THERE)


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
