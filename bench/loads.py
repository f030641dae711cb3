"""What is done to a contender. A load takes a Route and a duration and returns figures; it fails with LoadError.

Rates are of payload: Mb/s = 10^6 bits a second that the receiving program got.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from accounting import cpu, losses, settle
from contenders import Process, Route, run

HERE = Path(__file__).resolve().parent
#: Beyond its own duration a load may take so long (connecting, retransmitting, ending) before it counts as stalled.
GRACE = 10

#: TCP payload of a packet of MTU 1480 with timestamps.
TUNNELLED_SEGMENT = 1480 - 40 - 32

#: The rates at which UDP is offered, in thousands of packets a second.
LADDER = (10, 15, 20, 30, 40, 60, 80, 120, 160, 240)
#: A step below this loss counts as lossless.
NO_LOSS = 0.005
#: A sender below this part of what it was asked for is at its own limit.
OFFERED = 0.9


#: Each run gets a port of its own: what is left of one's UDP in some queue must not be taken for the next one's.
_ports = itertools.count(5400)


class LoadError(Exception):
    """A load did not come to its end."""


@dataclass(frozen=True)
class Load:
    key: str
    label: str
    run: Callable[[Route, float], dict]


def iperf(made: Route, seconds: float, options: str) -> dict:
    """iperf3 from client to server: its JSON report. Of `seconds` only the whole ones count: 0 would be without end."""
    listener, client = _iperf_pair(made)
    try:
        command = f"{client} --time {max(1, int(seconds))} --json --interval 0.1 {options}"
        return _finished(made, command, seconds, listener)
    finally:
        listener.kill()


def _iperf_pair(made: Route) -> tuple[Process, str]:
    """A server, listening, and the command line of its client."""
    port = next(_ports)
    listener = made.lab.process(made.server, f"iperf3 --server --port {port} --one-off --forceflush")
    listener.wait_until(lambda: any("listening" in line for line in listener.out), "iperf3 listening")
    return listener, f"iperf3 --client {made.address} --port {port}"


def _finished(made: Route, command: str | list[str], seconds: float, other_end: Process | None = None) -> dict:
    """Runs a load's client to its end; its JSON report."""
    try:
        done = made.client.run(command, check=False, timeout=seconds + GRACE)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"stalled: no end {GRACE} s after its time") from error
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise LoadError(f"exit {done.returncode}: {done.stdout[-200:]}{done.stderr[-500:]}") from error
    if failure := report.get("error"):
        theirs = "; ".join(other_end.out[-2:] + other_end.err[-2:]) if other_end else ""
        raise LoadError(f"{failure} [{theirs}]" if theirs else failure)
    return report


def _mbps(bits: float) -> float:
    return round(bits / 1e6, 2)


def _tcp(options: str) -> Callable[[Route, float], dict]:
    def load(made: Route, seconds: float) -> dict:
        with cpu(made) as spent, losses(made) as lost:
            report = iperf(made, seconds, options)
        end = report["end"]
        directions = [name for name in ("sum_received", "sum_received_bidir_reverse") if name in end]
        received = sum(end[name]["bytes"] for name in directions)
        per_gb = 1e9 / received if received else float("nan")
        figures = {
            "mbps": _mbps(sum(end[name]["bits_per_second"] for name in directions)),
            "retransmits": sum(end.get(name, {}).get("retransmits", 0) for name in ("sum_sent", "sum_sent_bidir_reverse")),
            "stalled_ms": _stalled(report),
            "bytes": received,
            "cpu": spent,
            "machine_seconds_per_gb": round(max(0.0, spent["machine_busy"] - spent["others"]) * per_gb, 3),
            "lost": lost,
        }
        if len(directions) == 2:
            figures["each_mbps"] = [_mbps(end[name]["bits_per_second"]) for name in directions]
        if made.daemons:
            figures["user_seconds_per_gb"] = round(spent["user"] * per_gb, 3)
            figures["system_seconds_per_gb"] = round(spent["system"] * per_gb, 3)
            if total := spent["user"] + spent["system"]:
                figures["user_share"] = round(spent["user"] / total, 4)
        return figures

    return load


def _stalled(report: dict) -> int:
    """Milliseconds, in tenths of a second, in which no byte left the sender."""
    return sum(100 for interval in report["intervals"] if interval["sum"]["bytes"] == 0)


def udp_step(made: Route, seconds: float, size: int, kpps: float | None) -> dict:
    """Datagrams of `size` bytes at a rate, or (None) as many as the sender can."""
    rate = f"{kpps * 1000 * size * 8:.0f}" if kpps else "0"
    with cpu(made) as spent, losses(made) as lost:
        # A pacing timer of 1 ms (the default) would send bursts of hundreds of packets.
        report = iperf(made, seconds, f"--udp --bitrate {rate} --length {size} --pacing-timer 100")
        drained = settle(made)
    sent, received = report["end"]["sum_sent"], report["end"]["sum_received"]
    got = received["packets"] - received["lost_packets"]
    duration = max(sent["seconds"], 1e-3)
    step = {
        "asked_kpps": kpps,
        "sent": sent["packets"],
        "received": got,
        "offered_kpps": round(sent["packets"] / duration / 1000, 2),
        "received_kpps": round(got / duration / 1000, 2),
        "loss": round(1 - got / sent["packets"], 5) if sent["packets"] else 1.0,
        "machine_busy": spent["machine_busy"],
        "drained_seconds": drained,
        "lost": lost,
    }
    for name in ("offered", "received"):
        step[f"{name}_mbps"] = round(step[f"{name}_kpps"] * size * 8 / 1000, 2)
    return step


def udp(size: int, ladder: tuple[float, ...] = LADDER) -> Callable[[Route, float], dict]:
    """UDP at rising rates, at twice the highest that was lossless, and unlimited.

    The ladder is left when two rates in a row lose packets, or the sender cannot offer more.
    """

    def load(made: Route, seconds: float) -> dict:
        steps: list[dict] = []
        retried: list[str] = []

        def step_at(kpps: float | None) -> dict:
            try:
                return udp_step(made, seconds, size, kpps)
            except LoadError as error:  # one of a dozen steps must not take the others with it
                retried.append(f"at {kpps or 'unlimited'} kpps: {error}")
                return udp_step(made, seconds, size, kpps)

        no_loss, lossy = None, 0
        for kpps in ladder:
            steps.append(step := step_at(kpps))
            if step["loss"] >= NO_LOSS:  # a second chance: what else runs here can only have added loss
                steps.append(again := step_at(kpps))
                step = min(step, again, key=lambda step: step["loss"])
            if step["loss"] < NO_LOSS:
                no_loss, lossy = step, 0
            elif (lossy := lossy + 1) == 2:
                break
            if step["offered_kpps"] < OFFERED * kpps:
                break
        figures: dict = {"size": size, "steps": steps, "retried": retried}
        if no_loss:
            figures["no_loss"] = no_loss
            figures["twice"] = step_at(2 * no_loss["offered_kpps"])
            figures["twice_ratio"] = round(figures["twice"]["received_kpps"] / no_loss["received_kpps"], 4)
        figures["unlimited"] = step_at(None)
        return figures

    return load


def _udp_segments(made: Route, seconds: float) -> dict:
    """UDP in bursts that the kernel cuts into datagrams of 1400 bytes."""
    script = [sys.executable, HERE / "segments.py"]
    receiver = made.lab.process(made.server, [*script, "receive", made.address])
    try:
        receiver.wait_until(lambda: receiver.out, "segments.py ready")
        with cpu(made) as spent, losses(made) as lost:
            sent = _finished(made, [*map(str, script), "send", made.address, "1400", str(seconds)], seconds)
        receiver.wait_until(lambda: len(receiver.out) > 1, "segments.py's report", timeout=GRACE)
        received = json.loads(receiver.out[1])
        settle(made)
    finally:
        receiver.kill()
    return {
        "mbps": _mbps(received["bytes"] * 8 / max(received["seconds"], sent["seconds"])),
        "offered_mbps": _mbps(sent["bytes"] * 8 / sent["seconds"]),
        "segmented": sent["segmented"],
        "datagrams_per_read": round(received["bytes"] / 1400 / max(received["calls"], 1), 2),
        "machine_busy": spent["machine_busy"],
        "lost": lost,
    }


def _raw_sends(made: Route, seconds: float) -> dict:
    """What sending through a raw socket costs by itself, as the TCP payload that as many packets could carry."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/rawsend"
        compiler = os.environ.get("CC") or shutil.which("clang") or "cc"
        run([compiler, "-O2", "-o", program, HERE / "rawsend.c"])
        sink = made.lab.process(made.server, [program, "sink"])
        try:
            sink.wait_until(lambda: sink.out, "rawsend ready")
            sent = _finished(made, [program, "send", "10.0.0.1", "10.0.0.2", str(seconds)], seconds)
        finally:
            sink.kill()
    return {
        "mbps": _mbps(sent["packets"] * TUNNELLED_SEGMENT * 8 / sent["seconds"]),
        "cpu_ns": round(sent["cpu_ns"] / sent["packets"]),
    }


@contextlib.contextmanager
def _echo(made: Route) -> Iterator[None]:
    server = made.lab.process(made.server, [sys.executable, HERE / "pingpong.py", "echo", made.address])
    try:
        server.wait_until(lambda: server.out, "pingpong.py ready")
        yield
    finally:
        server.kill()


def _round_trips(made: Route, seconds: float) -> dict:
    script = [sys.executable, str(HERE / "pingpong.py"), "measure", made.address, str(seconds)]
    figures = _finished(made, script, seconds)
    for percentile, microseconds in figures["percentiles"]:
        if percentile in (50, 99, 99.9):
            figures[f"p{percentile:g}_us".replace(".", "")] = microseconds
    return figures


def _rtt_idle(made: Route, seconds: float) -> dict:
    with _echo(made):
        return _round_trips(made, seconds)


def _rtt_loaded(made: Route, seconds: float) -> dict:
    """Round trips beside one TCP stream in the same direction."""
    listener, client = _iperf_pair(made)
    command = f"{client} --time {int(seconds) + 60} --json"
    with _echo(made):
        stream = made.lab.process(made.client, command)
        try:
            # Once it moves: connected, and past its slow start.
            with contextlib.suppress(AssertionError):
                stream.wait_until(lambda: False, "end", timeout=0.5)
            if not stream.running:
                raise LoadError(f"iperf3 ended early: {stream.transcript()}")
            before = _bytes_received(made)
            figures = _round_trips(made, seconds)
            figures["beside_mbps"] = _mbps((_bytes_received(made) - before) * 8 / seconds)
        finally:
            stream.kill()
            listener.kill()
    return figures


def _bytes_received(made: Route) -> int:
    link = json.loads(run(["ip", "-n", made.server.name, "-j", "-s", "link", "show", "dev", made.device]).stdout)[0]
    return link["stats64"]["rx"]["bytes"]


LOADS: dict[str, Load] = {
    load.key: load
    for load in (
        Load("tcp-1", "TCP, 1 stream", _tcp("")),
        Load("tcp-4", "TCP, 4 streams", _tcp("--parallel 4")),
        Load("tcp-both", "TCP, both directions", _tcp("--bidir")),
        Load("udp-1400", "UDP 1400 B, rising rate", udp(1400)),
        Load("udp-512", "UDP 512 B, rising rate", udp(512)),
        Load("udp-64", "UDP 64 B, rising rate", udp(64)),
        Load("udp-1400-flood", "UDP 1400 B, sender unlimited", udp(1400, ())),
        Load("udp-64-flood", "UDP 64 B, sender unlimited", udp(64, ())),
        Load("udp-segments", "UDP 1400 B, segmentation offload", _udp_segments),
        Load("raw-sends", "raw socket, sends alone", _raw_sends),
        Load("rtt-idle", "round trip, idle", _rtt_idle),
        Load("rtt-loaded", "round trip beside TCP", _rtt_loaded),
    )
}
