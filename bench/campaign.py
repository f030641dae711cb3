"""Runs loads over contenders, round by round, and keeps every figure.

Usable from other programs: make a Plan, call run(), hand the result to report.py, plots.py or json.
"""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import contenders as ways
from accounting import Others
from contenders import CONTENDERS, SECTIONS, TUND, run
from loads import LOADS, LoadError

FORMAT = 1
KERNEL = ("veth", "vxlan", "sit")
CORE = (*KERNEL, "socat", "tund")
VARIANTS = tuple(key for key in CONTENDERS if key.startswith("tund-"))


@dataclass(frozen=True)
class Part:
    """Loads for some contenders on one kind of wire. Where parts overlap, a load runs once."""

    section: str
    contenders: tuple[str, ...]
    loads: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    name: str
    parts: tuple[Part, ...]
    rounds: int = 3
    #: Of one load, or of each step of a load with steps. Whole seconds: iperf3 knows no others.
    seconds: int = 2
    #: Of each step of UDP at rising rate.
    step_seconds: int = 1

    def schedule(self) -> dict[tuple[str, str], list[str]]:
        """The loads of each (section, contender), in the order of the parts."""
        found: dict[tuple[str, str], list[str]] = {}
        for section in SECTIONS:
            for part in (part for part in self.parts if part.section == section):
                for contender in part.contenders:
                    loads = found.setdefault((section, contender), [])
                    loads += (load for load in part.loads if load not in loads)
        return found

    def duration(self, load: str) -> int:
        return self.step_seconds if load.startswith("udp") else self.seconds

    def cost(self, load: str) -> float:
        """About how long a load takes."""
        steps = 11 if load in ("udp-1400", "udp-512", "udp-64") else 1
        return steps * self.duration(load) + 0.3


QUICK = Plan(
    "quick",
    (
        Part("as-is", ("veth", "sit", "tund"), ("tcp-1", "udp-1400", "rtt-idle")),
        Part("as-is", ("vxlan", "socat"), ("tcp-1", "udp-1400-flood", "rtt-idle")),
        Part("as-is", ("tund-no-offload",), ("tcp-1",)),
        Part("wire", ("veth", "sit", "tund"), ("tcp-1", "udp-1400-flood")),
    ),
    rounds=1,
    seconds=1,
)
DEFAULT = Plan(
    "default",
    (
        Part("as-is", CORE, ("tcp-1", "tcp-4", "tcp-both", "udp-1400", "udp-64", "udp-segments", "rtt-idle", "rtt-loaded")),
        Part("as-is", VARIANTS, ("tcp-1", "udp-1400-flood", "udp-segments", "rtt-idle")),
        Part("as-is", ("veth",), ("raw-sends",)),
        Part("wire", (*CORE, "tund-no-offload"), ("tcp-1", "udp-1400-flood", "rtt-idle")),
    ),
)
FULL = Plan(
    "full",
    (
        Part("as-is", CORE, tuple(load for load in LOADS if not load.endswith("-flood") and load != "raw-sends")),
        Part("as-is", VARIANTS, tuple(load for load in LOADS if load not in ("udp-1400", "udp-512", "udp-64", "raw-sends"))),
        Part("as-is", ("veth",), ("raw-sends",)),
        Part("wire", CORE, ("tcp-1", "tcp-4", "tcp-both", "udp-1400", "udp-64-flood", "udp-segments")),
        Part("wire", CORE, ("rtt-idle", "rtt-loaded")),
        Part("wire", VARIANTS, ("tcp-1", "udp-1400-flood")),
    ),
)
PLANS = {plan.name: plan for plan in (QUICK, DEFAULT, FULL)}


def machine() -> dict:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "tund": run([TUND, "--version"]).stdout.strip(),
        "iperf3": run("iperf3 --version").stdout.split("\n")[0],
        "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "receive_buffer": int(Path("/proc/sys/net/core/rmem_default").read_text()),
    }


def measure(plan: Plan, say: Callable[[str], None] = lambda text: print(text, end="", flush=True)) -> dict:
    """Runs a plan. `say` gets the progress in pieces, some of them not whole lines."""
    schedule = plan.schedule()
    left_out = {key: why for key in {key for _, key in schedule} if (why := ways.missing(CONTENDERS[key]))}
    for key in sorted(left_out):
        say(f"left out: {CONTENDERS[key].label}: {left_out[key]}\n")
    jobs = [job for job in schedule.items() if job[0][1] not in left_out]
    results = {
        "format": FORMAT,
        "plan": plan.name,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "step_seconds": plan.step_seconds,
        "machine": machine(),
        "left_out": left_out,
        "runs": [],
        "others": [],
        "ends": [],
    }
    progress = _Progress(plan.rounds * sum(sum(map(plan.cost, loads)) + 1 for _, loads in jobs))
    for number in range(plan.rounds):
        for (section, key), loads in _rotated(jobs, number):
            say(f"{progress.left()} round {number + 1} of {plan.rounds}, {SECTIONS[section]}, {CONTENDERS[key].label}:")
            place = {"round": number, "section": section, "contender": key}
            _measure_one(plan, place, loads, results, say)
            progress.done(sum(map(plan.cost, loads)) + 1)
            say("\n")
    return results


def _rotated(jobs: list, by: int) -> list:
    """Each round begins with another contender, so that none always follows the same one."""
    return [
        job
        for section in SECTIONS
        if (mine := [job for job in jobs if job[0][0] == section])
        for job in mine[by % len(mine) :] + mine[: by % len(mine)]
    ]


def _measure_one(plan: Plan, place: dict, loads: list[str], results: dict, say: Callable[[str], None]) -> None:
    """One contender's loads in one round. What fails is kept as "error", and the rest goes on."""
    others = Others()
    try:
        with ways.route(CONTENDERS[place["contender"]], place["section"]) as made:
            for load in loads:
                entry = {**place, "load": load}
                results["runs"].append(entry)
                try:
                    entry["figures"] = LOADS[load].run(made, plan.duration(load))
                    say(f"  {_headline(load, entry['figures'])}")
                except LoadError as error:
                    entry["error"] = str(error)
                    say(f"\n    {LOADS[load].label} FAILED: {error}\n   ")
                if dead := next((daemon for daemon in made.daemons if not daemon.running), None):
                    raise RuntimeError(f"it ended by itself\n{dead.transcript()}")
            for end, tund in zip(("client", "server"), ways.tunds(made)):
                entry = {**place, "end": end}
                results["ends"].append(entry)
                try:
                    entry["counters"] = dict(tund.stop())
                except AssertionError as error:  # too slow, or the wrong exit code
                    entry["error"] = str(error)
                entry["odd"] = _odd(tund.out)
    except (RuntimeError, AssertionError) as error:
        measured = [entry["load"] for entry in results["runs"] if all(entry[key] == place[key] for key in place)]
        results["runs"] += ({**place, "load": load, "error": str(error)} for load in loads if load not in measured)
        results.setdefault("failures", []).append({**place, "error": str(error)})
        say(f"\n    FAILED: {error}")
    results["others"].append({**place, "cpus": others.cpus()})


def _odd(out: list[str]) -> list[str]:
    """The drops and errors in the last block of counters that tund printed."""
    begins = [number for number, line in enumerate(out) if line.startswith("counter uplink.packets ")]
    return [line for line in out[begins[-1] if begins else 0 :] if line.startswith(("drop ", "error "))]


def _headline(load: str, figures: dict) -> str:
    if load.startswith("rtt"):
        return f"{load} {figures.get('p50_us', float('nan')):.0f} us"
    if "unlimited" in figures:
        return f"{load} {figures['unlimited']['received_mbps'] / 1000:.3g} Gb/s"
    return f"{load} {figures['mbps'] / 1000:.3g} Gb/s"


class _Progress:
    """What is left of the time, from what the part that is done has taken."""

    def __init__(self, total: float):
        self._total, self._done, self._begin = total, 0.0, time.monotonic()

    def done(self, cost: float) -> None:
        self._done += cost

    def left(self) -> str:
        spent = time.monotonic() - self._begin
        left = (self._total - self._done) * (spent / self._done if self._done else 1)
        return f"[{left / 60:4.1f} min left]"
