"""The threads of tund, and those it must not have.

An io_uring request that can neither finish at once nor be polled goes to a kernel thread, iou-wrk-*: correct, and several
times slower. None may show up, idle or busy.

    a 10.0.0.1 ------ switch ------ b 10.0.0.2
"""

import os

import pytest

import traffic
from packets import DOMAIN

B = "fd12:3456:7800:2::1"


@pytest.mark.parametrize("workers", [1, 2])
def test_no_kernel_workers(lab, workers):
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    tunnels = [lab.tund(host, f"{DOMAIN} --workers {workers}") for host in (a, b)]

    def assert_none(when: str):
        for tund in tunnels:
            names = [(thread / "comm").read_text().strip() for thread in tund.threads()]
            assert not [name for name in names if name.startswith("iou-wrk")], f"{when}: {names}"

    assert_none("before")
    ping = lab.process(a, f"ping -6 -q -i 0.01 -c 150 {B}")
    while ping.running:
        assert traffic.tcp(a, b, B, size=1 << 20)
        assert_none("under load")
        assert traffic.udp(b, a, "fd12:3456:7800:1::1", count=100)
        assert_none("under load")
    assert_none("after")


def allowed(thread) -> str:
    """The CPUs that a thread may run on."""
    [line] = [line for line in (thread / "status").read_text().splitlines() if line.startswith("Cpus_allowed_list:")]
    return line.split()[1]


@pytest.mark.parametrize("options, pinned", [("", False), ("--workers 3", False), ("--pin", True), ("--workers 3 --pin", True)])
def test_one_worker_per_cpu_pinned_only_on_demand(lab, options, pinned):
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    tund = lab.tund(a, f"{DOMAIN} {options}")
    lab.tund(b, DOMAIN)
    cpus = sorted(os.sched_getaffinity(0))
    first, *workers = sorted(tund.threads(), key=lambda thread: int(thread.name))
    assert len(workers) == (3 if "3" in options else min(len(cpus), 4))
    everywhere = allowed(first)
    wanted = [str(cpus[index % len(cpus)]) if pinned else everywhere for index in range(len(workers))]
    assert [allowed(thread) for thread in workers] == wanted
    assert a.ping(B)
