"""Packets for the tests, built by scapy: another implementation's idea of the headers."""

import random

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR, fragment  # noqa: F401
from scapy.layers.inet6 import (  # noqa: F401
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Raw

#: The domain of the tests that need only one: 24 bits of 10.0.0.0/8 follow the /40, which makes a /64 for each host.
PREFIX, RELAY_PREFIX = "fd12:3456:7800::/40", "10.0.0.0/8"
DOMAIN = f"--6rd-prefix {PREFIX} --6rd-relay-prefix {RELAY_PREFIX}"

#: tund's host and the peer at the other end of its wire, with the overlay address of each.
LOCAL, PEER = "10.0.0.1", "10.0.0.2"
HERE, THERE = "fd12:3456:7800:1::1", "fd12:3456:7800:2::1"

PROTOCOL_IPV6 = 41
NO_NEXT_HEADER = 59


def inner(source: str = THERE, destination: str = HERE, payload=b"no next header", **fields) -> IPv6:
    """An IPv6 packet. Unless `payload` is a header, the stack that gets it takes no notice of it (RFC 8200, 4.7)."""
    if isinstance(payload, bytes):
        fields.setdefault("nh", NO_NEXT_HEADER)
        payload = Raw(payload)
    return IPv6(src=source, dst=destination, **fields) / payload


def in_ipv4(payload=None, source: str = PEER, destination: str = LOCAL, **fields) -> IP:
    """`payload`, an inner packet or bytes in its place, as the peer would send it to tund."""
    payload = inner() if payload is None else payload
    return IP(src=source, dst=destination, proto=PROTOCOL_IPV6, **fields) / payload


def echo_request(source: str, destination: str, payload: bytes, **fields) -> IPv6:
    return IPv6(src=source, dst=destination, **fields) / ICMPv6EchoRequest(id=1, seq=1, data=payload)


def numbered(count: int, size: int = 64, seed: int = 41) -> list[bytes]:
    """`count` different payloads of random bytes, the same in every run."""
    source = random.Random(seed)
    return [number.to_bytes(4, "big") + source.randbytes(size - 4) for number in range(count)]
