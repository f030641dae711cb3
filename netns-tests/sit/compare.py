"""Two outcomes, field by field."""

from __future__ import annotations

from dataclasses import dataclass

from checksum import folded
from octets import ICMP, ICMPV6
from twins import Outcome


@dataclass(frozen=True)
class Difference:
    """One field of an outcome that sit and tund do not have in common."""

    name: str
    sit: object
    tund: object

    def __str__(self) -> str:
        return f"{self.name}: sit {_shown(self.sit)}, tund {_shown(self.tund)}"


def _shown(value) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "nothing"
    return value.hex() if isinstance(value, bytes) else str(value)


def differences(sit: Outcome, tund: Outcome) -> list[Difference]:
    found = []
    for place, describe in (("wire", ipv4_fields), ("device", inner_fields), ("pod", inner_fields)):
        ours, theirs = getattr(tund, place), getattr(sit, place)
        if place == "device":
            # tund's own errors come to the host through the TUN; like sit's they are seen where they go.
            ours, theirs = ([packet for packet in packets if not is_error(packet)] for packets in (ours, theirs))
        if len(ours) != len(theirs):
            found.append(Difference(f"{place}", theirs, ours))
            continue
        for one, other in zip(theirs, ours):
            one, other = describe(one), describe(other)
            found += [Difference(f"{place}.{name}", one.get(name), other.get(name))
                      for name in one | other if one.get(name) != other.get(name)]
    return found


def ipv4_fields(packet: bytes) -> dict[str, object]:
    """An IPv4 packet by its fields, except its identification: see `identifications`."""
    header_length = (packet[0] & 15) * 4
    fragment = int.from_bytes(packet[6:8], "big")
    fields = {
        "version": packet[0] >> 4, "ihl": packet[0] & 15, "tos": packet[1], "tot_len": int.from_bytes(packet[2:4], "big"),
        "flags": fragment >> 13, "offset": fragment & 0x1FFF, "ttl": packet[8],
        "protocol": packet[9], "source": packet[12:16], "destination": packet[16:20],
        "checksum is right": folded(packet[:header_length]) == 0xFFFF,
    }
    body = packet[header_length:]
    if packet[9] == ICMP:
        fields |= {"icmp.type": body[0], "icmp.code": body[1], "icmp.rest": body[4:8], "icmp.quote": body[8:]}
    else:
        fields["inner"] = body
    return fields


def is_ipv4(packet: bytes) -> bool:
    return b"\x45" <= packet[:1] < b"\x50"


def is_error(packet: bytes) -> bool:
    """ICMPv6, or of IPv4 destination unreachable or time exceeded."""
    if is_ipv4(packet):
        header_length = (packet[0] & 15) * 4
        return len(packet) >= header_length + 8 and packet[9] == ICMP and packet[header_length] in (3, 11)
    return len(packet) >= 48 and packet[6] == ICMPV6 and packet[40] < 128


def inner_fields(packet: bytes) -> dict[str, object]:
    """A packet as a whole, or what an ICMP error says."""
    if not is_error(packet):
        return {"packet": packet}
    if is_ipv4(packet):
        return ipv4_fields(packet)
    return {"icmpv6.destination": packet[24:40], "icmpv6.type": packet[40], "icmpv6.code": packet[41],
            "icmpv6.mtu": packet[44:48], "icmpv6.quote": packet[48:], "icmpv6.source": packet[8:24]}


def identifications(outcomes) -> str:
    """Whether packets have identifications. One of them may be zero by chance."""
    zeros = [packet[4:6] == b"\0\0" for outcome in outcomes for packet in outcome.wire]
    return "missing" if sum(zeros) > 1 + len(zeros) // 100 else "there"
