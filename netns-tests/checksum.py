"""The Internet checksum over IPv6 (RFC 8200, 8.1), word by word: slow, and not tund's."""

import struct

#: Offset of the checksum field in the header of each upper-layer protocol.
FIELD = {6: 16, 17: 6, 58: 2}


def folded(octets: bytes) -> int:
    """The ones'-complement sum of 16-bit words, not complemented."""
    octets += bytes(len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_header(packet: bytes) -> bytes:
    """Of a packet without extension headers."""
    return packet[8:40] + struct.pack("!II", len(packet) - 40, packet[6])


def is_right(packet: bytes) -> bool:
    """Whether the TCP, UDP or ICMPv6 checksum of an IPv6 packet is finished and right; a UDP checksum of 0 is not."""
    if packet[6] == 17 and packet[46:48] == bytes(2):
        return False
    return folded(pseudo_header(packet) + packet[40:]) == 0xFFFF


def unfinished(packet: bytes) -> bytes:
    """The packet as a stack hands it to a device that computes checksums: the field holds the pseudo-header's sum only."""
    at = 40 + FIELD[packet[6]]
    return packet[:at] + struct.pack("!H", folded(pseudo_header(packet))) + packet[at + 2 :]
