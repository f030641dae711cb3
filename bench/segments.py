"""UDP as QUIC sends it: up to 64 KiB at a time, cut into datagrams by the kernel (UDP_SEGMENT), merged again at the receiver
(UDP_GRO). iperf3 cannot. Runs inside the namespaces:

    segments.py receive ADDRESS             says "ready", ends when nothing has come for a while, prints a JSON object
    segments.py send ADDRESS SIZE SECONDS   as fast as it can, prints a JSON object
"""

import errno
import gc
import json
import socket
import struct
import sys
from time import perf_counter

PORT = 5302
UDP_SEGMENT, UDP_GRO = 103, 104
#: The receiver takes silence of so many seconds for the end, once something has come.
SILENCE = 0.5
PATIENCE = 15


def receive(address: str) -> dict:
    received = calls = 0
    first = last = 0.0
    buffer = bytearray(1 << 16)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        _set_patience(server, PATIENCE)
        server.bind((address, PORT))
        print("ready", flush=True)
        try:
            while True:
                length = server.recv_into(buffer)
                last = perf_counter()
                if not calls:
                    first = last
                    _set_patience(server, SILENCE)
                received += length
                calls += 1
        except BlockingIOError:
            pass
    return {"bytes": received, "calls": calls, "seconds": last - first}


def _set_patience(opened: socket.socket, seconds: float) -> None:
    """Unlike settimeout() this costs no poll() a datagram."""
    value = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


def send(address: str, size: int, seconds: float) -> dict:
    sent = calls = 0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.connect((address, PORT))
        client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        segmented = True
        burst = bytes(size * min(64, 65000 // size))
        begin = perf_counter()
        while (now := perf_counter()) < begin + seconds:
            try:
                sent += client.send(burst)
                calls += 1
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                # A device without checksum offload refuses; what uses UDP_SEGMENT then sends one by one.
                if error.errno not in (errno.EIO, errno.EINVAL) or not segmented:
                    raise
                segmented = False
                client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
                burst = bytes(size)
    return {"bytes": sent, "calls": calls, "seconds": now - begin, "segmented": segmented}


if __name__ == "__main__":
    gc.disable()
    if sys.argv[1] == "receive":
        print(json.dumps(receive(sys.argv[2])))
    else:
        print(json.dumps(send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
