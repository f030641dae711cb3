"""Who used the CPUs, and where packets were lost: the kernel's own counters, as differences over a stretch of time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from contenders import Route

_KERNEL_THREAD = 0x0020_0000  # PF_KTHREAD
TICK = 1 / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def cpu(made: Route) -> Iterator[dict]:
    """Fills a dictionary with CPU seconds: "user", "system" and "threads" of the daemons; "machine_busy" and "machine_steal" of
    all; and "others", what other programs have in "machine_busy".

    A thread's system time includes the kernel's packet processing that an interrupt did on its back, as everywhere in Linux.
    """
    figures: dict = {}
    others, machine, tasks = _others(), _machine(), _tasks(made)
    yield figures
    tasks_after, machine_after = _tasks(made), _machine()
    figures["others"] = round(max(0, _others() - others) * TICK, 2)
    figures["machine_busy"], figures["machine_steal"] = (
        round((after - before) * TICK, 2) for before, after in zip(machine, machine_after)
    )
    spent = {
        task: [round((after - before) * TICK, 2) for before, after in zip(tasks.get(task, (0, 0)), times)]
        for task, times in tasks_after.items()
    }
    figures["user"] = round(sum(user for user, _ in spent.values()), 2)
    figures["system"] = round(sum(system for _, system in spent.values()), 2)
    figures["threads"] = {f"{end}/{name}/{tid}": times for (end, name, tid), times in spent.items()}


def _machine() -> tuple[int, int]:
    """Ticks busy, and ticks that the hypervisor gave to others."""
    user, nice, system, _, _, interrupt, soft, steal, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return user + nice + system + interrupt + soft, steal


def _tasks(made: Route) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Ticks in user and in kernel mode of each thread of the daemons."""
    found = {}
    for end, daemon in zip(("client", "server"), made.daemons):
        for task in Path(f"/proc/{daemon.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
                found[end, name, task.name] = tuple(map(int, rest.split()[11:13]))
    return found


class Others:
    """What programs that have nothing to do with the measurement took from it."""

    def __init__(self):
        self._begin, self._before = time.monotonic(), _others()

    def cpus(self) -> float:
        """CPUs in use by others, on average since the beginning."""
        ticks = max(0, _others() - self._before)
        return round(ticks * TICK / (time.monotonic() - self._begin), 3)


def _others() -> int:
    """Ticks of all processes that are neither kernel threads nor of our process group. With the time of the children that
    they have waited for, so that what a process had used does not vanish with it."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) != os.getpgrp() and not int(fields[6]) & _KERNEL_THREAD:
                ticks += sum(map(int, fields[11:15]))
    return ticks


@contextlib.contextmanager
def losses(made: Route) -> Iterator[dict]:
    """Fills a dictionary with the packets that the kernel dropped on the way from client to server, by place."""
    figures: dict = {}
    before = _losses(made)
    yield figures
    figures.update({place: count - before[place] for place, count in _losses(made).items() if count > before[place]})


def settle(made: Route, patience: float = 3) -> float:
    """Waits until nothing arrives any more: seconds it took. A full receive buffer of 8 MiB outlives its sender."""
    begin, before = time.monotonic(), -1
    while (count := _received(made)) != before and time.monotonic() - begin < patience:
        before = count
        time.sleep(0.03)
    return round(time.monotonic() - begin, 2)


def _received(made: Route) -> int:
    with made.server.entered():
        return _device(made.device)[1]


def _losses(made: Route) -> dict[str, int]:
    with made.client.entered():
        queue = _device(made.device)[11]  # transmit drops
    with made.server.entered():
        raw = sum(int(line.split()[-1]) for line in _net("raw").splitlines()[1:])
        udp = sum(int(line.split()[1]) for line in _net("snmp6").splitlines() if line.startswith("Udp6RcvbufErrors"))
        tun = _device(made.device)[3]  # receive drops
    backlog = sum(int(line.split()[1], 16) for line in _net("softnet_stat").splitlines())
    return {
        "sender's queue": queue,
        "backlog": backlog,
        "raw socket": raw,
        "receiver's device": tun,
        "receiving program": udp,
    }


def _net(name: str) -> str:
    return Path("/proc/thread-self/net", name).read_text()


def _device(name: str) -> list[int]:
    """The columns of /proc/net/dev: receive bytes packets errs drop fifo frame compressed multicast, the same for transmit."""
    for line in _net("dev").splitlines():
        device, _, columns = line.partition(":")
        if device.strip() == name:
            return [int(word) for word in columns.split()]
    raise RuntimeError(f"no device {name}")
