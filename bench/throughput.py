"""Throughput of tund between two namespaces, beside the plain wire that it runs on.

      client 10.0.0.1 ------- veth ------- 10.0.0.2 server
      fd00:0:a00:1::1 ======= tund ======= fd00:0:a00:2::1

All contenders run in every round, one after the other, so that what else the machine does hits all of them; a figure is the
median of the rounds, and worth something only as a ratio to another one of the same run.

    sudo make bench            three rounds
    sudo ROUNDS=7 make bench
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests"))
from lab import Lab, Namespace  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS = 3
#: Label and options of tund; None for the wire itself.
CONTENDERS = {"plain veth": None, "tund, 1 worker": "--workers 1", "tund, 2 workers": "--workers 2"}


def iperf(lab: Lab, client: Namespace, server: Namespace, address: str, options: str) -> dict:
    listener = lab.process(server, "iperf3 --server --one-off --forceflush")
    listener.wait_until(lambda: any("listening" in line for line in listener.out), "iperf3 listening")
    output = client.run(f"iperf3 --client {address} --time {SECONDS} --json {options}", timeout=60).stdout
    listener.wait()
    return json.loads(output)["end"]


def tcp(lab: Lab, client: Namespace, server: Namespace, address: str) -> float:
    """Gb/s received by one stream."""
    return iperf(lab, client, server, address, "")["sum_received"]["bits_per_second"] / 1e9


def udp(lab: Lab, client: Namespace, server: Namespace, address: str) -> float:
    """Gb/s received of 1400-byte datagrams, the sender unlimited."""
    result = iperf(lab, client, server, address, "--udp --bitrate 0 --length 1400")["sum"]
    return result["bits_per_second"] * (1 - result["lost_percent"] / 100) / 1e9


def round_trip(lab: Lab, client: Namespace, server: Namespace, address: str) -> float:
    """Median of 200 pings in microseconds."""
    output = client.run(f"ping -n -c 200 -i 0.005 -W 2 {address}", timeout=60).stdout
    return statistics.median(float(found) for found in re.findall(r"time=([0-9.]+) ms", output)) * 1000


MEASURES = {"TCP Gb/s": tcp, "UDP 1400 Gb/s": udp, "round trip us": round_trip}


def one_round() -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    for label, options in CONTENDERS.items():
        with Lab() as lab:
            client, server = lab.namespace("client"), lab.namespace("server")
            lab.veth(client, "eth0", server, "eth0")
            client.ip("addr add 10.0.0.1/24 dev eth0")
            server.ip("addr add 10.0.0.2/24 dev eth0")
            address = "10.0.0.2"
            if options is not None:
                address = "fd00:0:a00:2::1"
                for host in (client, server):
                    lab.tund(host, f"--6rd-prefix fd00::/32 {options}")
                assert client.ping(address), "no ping through the tunnel"
            figures[label] = {name: measure(lab, client, server, address) for name, measure in MEASURES.items()}
    return figures


def main() -> None:
    rounds = []
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", flush=True)
        rounds.append(one_round())
    print(f"\nLinux {platform.release()}, {os.cpu_count()} CPUs; median of {ROUNDS} rounds (least to most), ratio to the wire\n")
    rows = [["", *MEASURES]]
    for label in CONTENDERS:
        cells = [label]
        for measure in MEASURES:
            values = [figures[label][measure] for figures in rounds]
            ratio = statistics.median(figures[label][measure] / figures["plain veth"][measure] for figures in rounds)
            cells.append(f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g}), {ratio:.3f}")
        rows.append(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    results = ROOT / "bench/results"
    results.mkdir(exist_ok=True)
    (results / "throughput.json").write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()
