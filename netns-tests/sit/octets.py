"""Packets as octets: written and taken apart without scapy, whose import alone takes 12 seconds in an emulated guest."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from checksum import folded

ICMP, IPIP, IPV6, ICMPV6, NO_NEXT_HEADER = 1, 4, 41, 58, 59
#: A protocol for experiments (RFC 3692): no stack answers it.
NOBODYS = 253
DF, MF = 0x4000, 0x2000


def ipv6(source, destination, payload=b"", *, label, tclass=0, hops=64, nh=NO_NEXT_HEADER, version=6, length=None) -> bytes:
    """An IPv6 packet; `length` is that of the payload unless it shall lie."""
    length = len(payload) if length is None else length
    first = version << 28 | tclass << 20 | label
    return struct.pack("!IHBB", first, length & 0xFFFF, nh, hops) + IPv6Address(source).packed + \
        IPv6Address(destination).packed + payload


def ipv4(source, destination, payload, *, ident, tos=0, ttl=64, protocol=IPV6, fragment=DF, options=b"", version=4,
         length=None, right_checksum=True) -> bytes:
    header_length = 20 + len(options)
    length = header_length + len(payload) if length is None else length
    header = struct.pack("!BBHHHBBH", version << 4 | header_length >> 2, tos, length & 0xFFFF, ident & 0xFFFF, fragment, ttl,
                         protocol, 0) + IPv4Address(source).packed + IPv4Address(destination).packed + options
    checksum = 0xFFFF - folded(header) ^ (not right_checksum)
    return header[:10] + checksum.to_bytes(2, "big") + header[12:] + payload


def icmp(kind: int, code: int, quote: bytes, *, rest: int = 0) -> bytes:
    """An ICMPv4 message; `rest` is the second word of its header."""
    message = struct.pack("!BBHI", kind, code, 0, rest) + quote
    return message[:2] + (0xFFFF - folded(message)).to_bytes(2, "big") + message[4:]


def label_of(packet: bytes) -> int:
    """The flow label of an IPv6 packet, or of the one that an ICMPv6 error quotes; 0 if there is none."""
    if len(packet) < 4:
        return 0
    if len(packet) >= 52 and packet[6] == ICMPV6 and packet[40] < 128:
        return label_of(packet[48:])
    return int.from_bytes(packet[:4], "big") & 0xFFFFF


def tag_of(packet: bytes) -> int:
    """Which packet this is, or is about: packets are tagged in their flow label, IPv4 packets inside where their payload
    would have it."""
    if packet[:1] < b"\x40" or packet[:1] >= b"\x50" or len(packet) < 20:
        return label_of(packet)
    offset = (packet[0] & 15) * 4
    if packet[9] == ICMP:
        return tag_of(packet[offset + 8 :])
    if packet[9] == IPIP and offset >= 20:
        return tag_of(packet[offset:])
    return label_of(packet[offset:])
