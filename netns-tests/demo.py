"""What `make demo` shows: two hosts, one overlay, no coordination.

      host a                                  host b
      10.0.0.1 eth0 ------- wire -------- eth0 10.0.0.2
      tund0                                   tund0
      fd00:0:a00:1::1/32                      fd00:0:a00:2::1/32

Each tund computes its overlay address from its host's IPv4 address; then they ping, run TCP each way, and carry a file
whose checksum is compared. Everything that is made is removed, also on Ctrl-C.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time

from lab import Lab, Namespace, Tund

PREFIX = "fd00::/32"
FILE_SIZE = 100 * 1000 * 1000
TCP_SECONDS = 3
ADDRESSES = {"a": ("10.0.0.1", "fd00:0:a00:1::1"), "b": ("10.0.0.2", "fd00:0:a00:2::1")}


def main() -> None:
    # Ctrl-C and a polite kill both unwind the stack, so that the Lab closes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("\ninterrupted"))
    with Lab() as lab:
        print("making two hosts and a wire between them", flush=True)
        a, b = lab.namespace("a"), lab.namespace("b")
        lab.veth(a, "eth0", b, "eth0")
        for host, name in ((a, "a"), (b, "b")):
            host.ip(f"addr add {ADDRESSES[name][0]}/24 dev eth0")
        daemons = [lab.tund(host, f"--6rd-prefix {PREFIX}") for host in (a, b)]

        rows = [("addresses", "10.0.0.1, 10.0.0.2", ", ".join(overlay for _, overlay in ADDRESSES.values()))]
        print("ping", flush=True)
        rows.append(("round trip", ping(a, ADDRESSES["b"][0]), ping(a, ADDRESSES["b"][1])))
        rows.append(("round trip back", ping(b, ADDRESSES["a"][0]), ping(b, ADDRESSES["a"][1])))
        for label, client, server, to in (("TCP a to b", a, b, "b"), ("TCP b to a", b, a, "a")):
            print(f"{label}, {TCP_SECONDS} s on the wire and {TCP_SECONDS} s in the tunnel", flush=True)
            wire, tunnel = (throughput(lab, client, server, address) for address in ADDRESSES[to])
            rows.append((label, f"{wire:.2f} Gb/s", f"{tunnel:.2f} Gb/s ({tunnel / wire:.0%})"))
        print(f"a file of {FILE_SIZE // 1_000_000} MB", flush=True)
        rows.append(("file", "", transfer(a, b, ADDRESSES["b"][1])))

        print()
        table([("", "plain wire", "tund"), *rows])
        print()
        for name, daemon in zip("ab", daemons):
            report(name, daemon)


def ping(host: Namespace, address: str) -> str:
    """Median round trip of ten pings."""
    output = host.run(f"ping -n -c 10 -i 0.05 -W 2 {address}").stdout
    times = sorted(float(found) for found in re.findall(r"time=([0-9.]+) ms", output))
    if len(times) < 10:
        sys.exit(f"only {len(times)} of 10 pings to {address} came back")
    return f"{times[len(times) // 2]:.3f} ms"


def throughput(lab: Lab, client: Namespace, server: Namespace, address: str) -> float:
    """Gb/s received by one TCP stream."""
    listener = lab.process(server, "iperf3 --server --one-off --forceflush")
    listener.wait_until(lambda: any("listening" in line for line in listener.out), "iperf3 listening")
    result = json.loads(client.run(f"iperf3 --client {address} --time {TCP_SECONDS} --json", timeout=60).stdout)
    listener.wait()
    return result["end"]["sum_received"]["bits_per_second"] / 1e9


def transfer(sender: Namespace, receiver: Namespace, address: str) -> str:
    """Sends a file of random bytes and compares SHA-256 sums."""
    data = os.urandom(FILE_SIZE)
    listener = receiver.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.bind((address, 5000))
    listener.listen()
    received = hashlib.sha256()

    def receive() -> None:
        connection, _ = listener.accept()
        with connection:
            while piece := connection.recv(1 << 20):
                received.update(piece)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    started = time.monotonic()
    with sender.socket(socket.AF_INET6, socket.SOCK_STREAM) as connection:
        connection.connect((address, 5000))
        connection.sendall(data)
    thread.join(60)
    seconds = time.monotonic() - started
    listener.close()
    if received.digest() != hashlib.sha256(data).digest():
        sys.exit("the file arrived with another checksum")
    return f"{FILE_SIZE / 1e6:.0f} MB in {seconds:.1f} s, SHA-256 equal ({received.hexdigest()[:12]}...)"


def table(rows: list[tuple[str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def report(name: str, daemon: Tund) -> None:
    """A daemon's packets and drops."""
    daemon.stop()
    counters = daemon.final_counters()
    print(f"host {name}: {counters['uplink.packets']} packets sent, {counters['downlink.packets']} received")
    print(f"        super-packets: {counters['offload.split']} split, {counters['offload.merged']} merged")
    totals = re.compile(r"(uplink|downlink)\.(packets|bytes)$|offload\.")
    others = [f"{count} x {reason}" for reason, count in sorted(counters.items()) if not totals.match(reason)]
    print(f"        dropped: {', '.join(others) or 'nothing'}")


if __name__ == "__main__":
    main()
