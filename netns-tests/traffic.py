"""Data between hosts over the sockets a program would use, checked at the other end by its digest."""

import hashlib
import random
import socket
import threading

from lab import PATIENCE, Namespace


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp(sender: Namespace, receiver: Namespace, address: str, size: int = 4 << 20) -> bool:
    """Whether `size` random bytes sent over one connection to `address` of the receiver arrive unchanged."""
    listener = receiver.socket(family(address), socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen()
    client = sender.socket(family(address), socket.SOCK_STREAM)
    with listener, client:
        client.connect((address, listener.getsockname()[1]))
        server, _ = listener.accept()
        data = random.randbytes(size)

        def send():
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        with server:
            server.settimeout(PATIENCE)
            sending = threading.Thread(target=send, daemon=True)
            sending.start()
            digest = hashlib.sha256()
            while chunk := server.recv(1 << 20):
                digest.update(chunk)
            sending.join(PATIENCE)
    return digest.digest() == hashlib.sha256(data).digest()


def udp(sender: Namespace, receiver: Namespace, address: str, *, source: str = "", count: int = 400) -> bool:
    """Whether `count` datagrams of sizes from 8 to 1432 bytes arrive, each exactly once and unchanged.

    Some at a time, so that no queue on the way can overflow: a datagram that is missing was lost by tund."""
    inbound = receiver.socket(family(address), socket.SOCK_DGRAM)
    inbound.bind((address, 0))
    outbound = sender.socket(family(address), socket.SOCK_DGRAM)
    outbound.bind((source, 0))
    outbound.connect((address, inbound.getsockname()[1]))
    datagrams = [number.to_bytes(8, "big") + random.randbytes(number * 97 % 1425) for number in range(count)]
    with inbound, outbound:
        for start in range(0, count, 20):
            sent = datagrams[start : start + 20]
            for datagram in sent:
                outbound.send(datagram)
            if sorted(inbound.recv(2048) for _ in sent) != sent:
                return False
        inbound.setblocking(False)
        try:
            inbound.recv(2048)
        except BlockingIOError:
            return True
    return False
