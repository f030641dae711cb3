"""tund as root of a user namespace, as in unprivileged containers (LXD, rootless podman, Kubernetes' hostUsers: false).

    container 10.0.0.1, its root is nobody outside ------ host b 10.0.0.2

Its capabilities count for its own network namespace only: what belongs to the whole host is refused.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import traffic
from lab import PATIENCE, Namespace, run
from packets import DOMAIN

A, B = "fd12:3456:7800:1::1", "fd12:3456:7800:2::1"
NOBODY = 65534


@pytest.fixture
def hosts(lab, binary):
    """(the container, host b, a function that starts tund in the container)"""
    held = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups",
                             "unshare", "--user", "--map-root-user", "--net", "sleep", "infinity"])  # fmt: skip
    files = Path(tempfile.mkdtemp())
    try:
        # Its parent's user namespace until unshare has done its work.
        end = time.monotonic() + PATIENCE
        while os.readlink(f"/proc/{held.pid}/ns/user") == os.readlink("/proc/self/ns/user") or not Path(
                f"/proc/{held.pid}/uid_map").read_text().strip():
            assert time.monotonic() < end and held.poll() is None, "unshare --user"
            time.sleep(0.01)
        container = object.__new__(Namespace)
        container.name = f"tund-{os.getpid()}-0-container"
        run(["ip", "netns", "attach", container.name, str(held.pid)])
        lab.namespaces.append(container)
        b = lab.namespace("b")
        container.ip("link set lo up")
        lab.veth(container, "eth0", b, "eth0")
        container.ip("addr add 10.0.0.1/8 dev eth0")
        b.ip("addr add 10.0.0.2/8 dev eth0")
        # What a container's manager gives it: the program, and a device node of its own.
        files.chmod(0o755)
        program = shutil.copy(binary, files / "tund")
        os.mknod(files / "tun", 0o020666, os.makedev(10, 200))
        os.chmod(files / "tun", 0o666)
        enter = f'mount --bind {files}/tun /dev/net/tun && exec nsenter -t {held.pid} -U --setuid 0 --setgid 0 -- "$@"'
        yield container, b, lambda options: lab.tund(
            container, options, binary=program, through=["sh", "-c", enter, "sh"])
    finally:
        lab.close()
        held.kill()
        held.wait()
        shutil.rmtree(files)


@pytest.mark.parametrize("options, far", [
    (DOMAIN, DOMAIN),
    (f"--remote 10.0.0.2 --address {A}/40", f"--remote 10.0.0.1 --address {B}/40"),
], ids=["domain", "point to point"])  # fmt: skip
def test_two_hosts(hosts, lab, options, far):
    a, b, tund_in_container = hosts
    tund = tund_in_container(f"{options} --workers 2")
    lab.tund(b, far)
    assert a.ping(B, count=2) and b.ping(A)
    assert traffic.tcp(a, b, B) and traffic.tcp(b, a, A)
    assert traffic.udp(a, b, B) and traffic.udp(b, a, A)
    warnings = [line for line in tund.err if "buffers" in line]
    assert len(warnings) == 2 and all(any(f"net.core.{name}" in line for line in warnings) for name in ("rmem_max", "wmem_max"))
    a.ip("addr del 10.0.0.1/8 dev eth0", "addr add 10.0.0.7/8 dev eth0")
    tund.wait_until(lambda: any("renumbered from 10.0.0.1" in line for line in tund.err), "renumbering")
