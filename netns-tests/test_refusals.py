"""What a host refuses tund, and what it says then: the condition that holds, not a guess.

    host 10.0.0.1, started with something missing
"""

import os
import sys

import pytest

from packets import DOMAIN
from test_renumbering import eventually

#: ENOSYS, EPERM or what else a filter answers to a system call by number, for all that is started afterwards.
REFUSE = """
import ctypes, os, struct, sys
number, code = int(sys.argv[1]), int(sys.argv[2])
def instruction(code, jt, jf, k): return struct.pack("HBBI", code, jt, jf, k)
program = b"".join([
    instruction(0x20, 0, 0, 0),            # ld nr
    instruction(0x15, 0, 1, number),       # jeq
    instruction(0x06, 0, 0, 0x50000 | code),  # SECCOMP_RET_ERRNO
    instruction(0x06, 0, 0, 0x7fff0000)])  # SECCOMP_RET_ALLOW
held = ctypes.create_string_buffer(program)
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(held)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[3], sys.argv[3:])
"""
BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
EPERM = 1


def refusing(call: int, code: int) -> list[str]:
    return [sys.executable, "-c", REFUSE, str(call), str(code)]


def in_own_mounts(command: str) -> list[str]:
    """`ip netns exec` gives each command a mount namespace of its own."""
    return ["sh", "-c", f'{command}; exec "$@"', "sh"]


@pytest.fixture
def host(lab):
    [made] = lab.underlay({"host": "10.0.0.1/8"})
    return made


#: What the host is like, the options, and words of the last line, which are all that is said of it.
CASES = {
    "no device node": (in_own_mounts("mount -t tmpfs none /dev/net"), "", ["/dev/net/tun is missing here", "container"]),
    "no driver behind the device node": (
        in_own_mounts("mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 254"), "", ["no tun driver", "modprobe tun"]),
    "no address space": (["prlimit", "--as=300000000"], "--workers 16", ["ulimit -v"]),
    "no /proc": (in_own_mounts("mount -t tmpfs none /proc"), "", ["/proc is not mounted"]),
}  # fmt: skip


@pytest.mark.parametrize("through, options, words", CASES.values(), ids=CASES)
def test_the_condition_is_named(host, binary, through, options, words):
    done = host.run([*through, str(binary), "run", *f"{DOMAIN} {options}".split()], check=False)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert not [word for word in words if word not in last], done.stderr
    assert "USAGE" not in done.stdout + done.stderr
    # The kernel tears down what io_uring holds some time after the process.
    eventually(lambda: "tund0" not in host.show("link show"), "tund0 is still there")


def test_bpf_refused_by_a_filter_is_no_missing_capability(host, lab):
    tund = lab.tund(host, DOMAIN, through=refusing(BPF, EPERM))
    [line] = [line for line in tund.err if "merges on arrival" in line]
    assert "although CAP_BPF is held" in line and "missing" not in line


def test_bpf_without_the_capability(host, lab):
    tund = lab.tund(host, DOMAIN, through=["setpriv", "--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin", "--"])
    [line] = [line for line in tund.err if "merges on arrival" in line]
    assert "CAP_BPF is missing" in line


def test_ipv6_switched_off(host, lab, binary):
    """With addresses to set it is an error with its remedy; without any, a warning."""
    host.sysctl(ipv6__conf__default__disable_ipv6=1)
    done = host.run(f"{binary} run {DOMAIN}", check=False)
    assert done.returncode == 1 and "disable_ipv6" in done.stderr.splitlines()[-1], done.stderr
    tund = lab.tund(host, f"{DOMAIN} --address none")
    assert [line for line in tund.err if "warning" in line and "net.ipv6.conf.default.disable_ipv6" in line], tund.transcript()
    tund = lab.tund(host, "--remote 10.0.0.2 --mode ipip", name="ipv4")
    assert not [line for line in tund.err if "ipv6" in line.lower()], tund.transcript()
