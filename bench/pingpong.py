"""Round trips of a small UDP datagram, one at a time. Runs inside the namespaces:

    pingpong.py echo ADDRESS             answers until it is killed; says "ready" first
    pingpong.py measure ADDRESS SECONDS  prints a JSON object
"""

import gc
import json
import socket
import sys
from time import perf_counter_ns

PORT = 5301
SIZE = 64
#: A datagram without answer for so long counts as lost.
PATIENCE = 0.5
#: The distribution is handed on as these percentiles.
PERCENTILES = [0.0, 1.0, *range(5, 95, 5), *range(95, 100), *(99.5, 99.8, 99.9, 99.95, 100.0)]


def echo(address: str) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind((address, PORT))
        print("ready", flush=True)
        buffer = bytearray(SIZE)
        while True:
            _, sender = server.recvfrom_into(buffer)
            server.sendto(buffer, sender)


def measure(address: str, seconds: float) -> dict:
    samples: list[int] = []
    lost = 0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.connect((address, PORT))
        client.settimeout(PATIENCE)
        end = perf_counter_ns() + int(seconds * 1e9)
        number = 0
        while (sent := perf_counter_ns()) < end:
            number += 1
            datagram = number.to_bytes(SIZE, "big")
            client.send(datagram)
            try:
                while client.recv(SIZE) != datagram:  # a late answer to one that was given up
                    pass
            except TimeoutError:
                lost += 1
                continue
            samples.append(perf_counter_ns() - sent)
    samples.sort()
    return {"samples": len(samples), "lost": lost, "percentiles": percentiles(samples)}


def percentiles(samples: list[int]) -> list[tuple[float, float]]:
    """(percentile, microseconds) pairs of sorted nanoseconds."""
    if not samples:
        return []
    last = len(samples) - 1
    return [(float(percent), samples[round(last * percent / 100)] / 1000) for percent in PERCENTILES]


if __name__ == "__main__":
    gc.disable()
    if sys.argv[1] == "echo":
        echo(sys.argv[2])
    else:
        print(json.dumps(measure(sys.argv[2], float(sys.argv[3]))))
