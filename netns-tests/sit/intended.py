"""What tund does otherwise than sit on purpose. A difference between the two that is not in here fails the test, and so does an
entry that no case needed. docs/rfc.md has each of them by its name, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

from cases import Case
from compare import Difference
from errors import EXTENSION, QUOTE_LENGTH
from octets import DF, ICMPV6, IPIP, IPV6
from tunnels import Tunnel


@dataclass(frozen=True)
class Intended:
    name: str
    #: Whether it explains one difference of one case.
    explains: Callable[[Tunnel, Case, Difference], bool]


def refused(difference: Difference) -> bool:
    """sit hands something on, and tund nothing."""
    return difference.name in ("wire", "device", "pod") and not difference.tund


def in_any(address: IPv4Address | IPv6Address, *networks: str) -> bool:
    return any(address in ip_network(network) for network in networks)


def downlink(condition) -> Callable[[Tunnel, Case, Difference], bool]:
    """A packet from the underlay that only tund refuses."""
    return lambda tunnel, case, difference: case.way == "wire" and refused(difference) and condition(tunnel, case)


def uplink(condition) -> Callable[[Tunnel, Case, Difference], bool]:
    """A packet for the underlay that only tund refuses."""
    return lambda tunnel, case, difference: case.way != "wire" and refused(difference) and condition(tunnel, case)


def strict_everywhere(condition):
    """What --source-check strict adds."""
    return lambda tunnel, case: tunnel.source_check == "strict" and condition(tunnel, case)


def strict(condition):
    """What it adds in a domain."""
    return strict_everywhere(lambda tunnel, case: bool(tunnel.prefix) and condition(tunnel, case))


def domain(tunnel: Tunnel) -> IPv6Network:
    return IPv6Network(tunnel.prefix)


def no_host(address: IPv6Address) -> bool:
    return in_any(address, "::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8")


def embedded(tunnel: Tunnel, address: IPv6Address) -> IPv4Address:
    """The host an address of the domain belongs to."""
    suffix_bits = 32 - tunnel.network.prefixlen
    suffix = int(address) >> 128 - domain(tunnel).prefixlen - suffix_bits & (1 << suffix_bits) - 1
    return IPv4Address(int(tunnel.network.network_address) | suffix)


def is_martian(host: IPv4Address) -> bool:
    return in_any(host, "0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")


#: What means something only within a site.
PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"]


def lies_about_its_length(packet: bytes) -> bool:
    return len(packet) < 40 or int.from_bytes(packet[4:6], "big") + 40 != len(packet)


def port_unreachable(tunnel: Tunnel, case: Case, difference: Difference) -> bool:
    return refused(difference) and difference.name == "wire" and all(packet[9] == 1 and packet[20:22] == b"\x03\x03"
                                                                      for packet in difference.sit)


def link_failure(tunnel: Tunnel, case: Case, difference: Difference) -> bool:
    return (tunnel.source_check == "strict" and refused(difference) and difference.name == "pod"
            and all(packet[6] == ICMPV6 and packet[40:42] == b"\1\3" for packet in difference.sit))


def icmp_translation(tunnel: Tunnel, case: Case, difference: Difference) -> bool:
    """tund tells the inner source what the error means, and quotes what it quoted."""
    error = case.error
    if difference.name != "pod" or difference.sit or len(difference.tund) != 1 or not error.translation:
        return False
    [answer] = difference.tund
    inner = case.packet[20 + 8 + 20 :]
    if error.extension:
        inner = inner[: QUOTE_LENGTH - 20] + bytes(20) + EXTENSION
    length = QUOTE_LENGTH // 8 if error.extension else 0
    return (answer[6] == ICMPV6 and answer[8:40] == tunnel.here.packed + case.source.packed
            and answer[40:42] == bytes(error.translation) and answer[44:] == bytes([length, 0, 0, 0]) + inner)


def may_be_fragmented(packet: bytes) -> bool:
    return not int.from_bytes(packet[6:8], "big") & DF


def ipv4_fragments(tunnel: Tunnel, case: Case, difference: Difference) -> bool:
    """tund sends them, without DF, and the kernel nothing."""
    if difference.name != "wire" or difference.sit or not tunnel.pmtudisc:
        return False
    fragments = sorted(difference.tund, key=lambda packet: int.from_bytes(packet[6:8], "big") & 0x1FFF)
    # But for TTL and checksum, which a router changes.
    inner = b"".join(packet[20:] for packet in fragments)
    return (len(case.packet) > tunnel.underlay_mtu - 20 and may_be_fragmented(case.packet) and len(fragments) > 1
            and all(map(may_be_fragmented, fragments)) and (inner[:8], inner[12:]) == (case.packet[:8], case.packet[12:]))


def fragmentation_needed(tunnel: Tunnel, case: Case, difference: Difference) -> bool:
    if case.way == "wire" or may_be_fragmented(case.packet) or len(case.packet) <= tunnel.underlay_mtu - 20:
        return False
    # One router more is on the way of tund's: the host itself.
    return (difference.name == "pod.source" and difference.tund == case.destination.packed
            or (difference.name, difference.sit, difference.tund) in [("pod.tos", 0xC0, 0), ("pod.ttl", 64, 63)])


def path_mtu_heard_of(tunnel: Tunnel, case: Case, difference: Difference) -> bool:
    """No link of the way is so narrow, but an ICMPv4 error says so: sit fragments, and tund sends the same in one packet without DF."""
    if difference.name != "wire" or len(difference.sit) < 2 or len(difference.tund) != 1 or tunnel.underlay_mtu < 1300:
        return False
    [whole], fragments = difference.tund, sorted(difference.sit, key=lambda packet: int.from_bytes(packet[6:8], "big") & 0x1FFF)
    return (len(case.packet) <= 1280 and whole[6:8] == bytes(2) and whole[20:] == b"".join(packet[20:] for packet in fragments)
            and all(map(may_be_fragmented, fragments)))


#: The more special ones first.
TABLE = [
    Intended("port-unreachable", port_unreachable),
    Intended("link-failure", link_failure),
    Intended("embedded-multicast", lambda t, c, d: bool(t.prefix) and c.destination in domain(t) and refused(d)
             and embedded(t, c.destination).is_multicast),
    Intended("nested-tunnel", downlink(strict_everywhere(lambda t, c: c.inner[6:7] in (b"\x04", b"\x29")))),
    Intended("nested-tunnel", uplink(strict_everywhere(lambda t, c: c.packet[6] in (IPIP, IPV6)))),
    Intended("inner-version", downlink(lambda t, c: c.inner[:1] < b"\x60" or c.inner[:1] > b"\x6f")),
    Intended("inner-length", lambda t, c, d: lies_about_its_length(c.inner or c.packet)
             and (refused(d) or d.name in ("wire.tot_len", "wire.inner", "wire.checksum", "device.packet"))),
    Intended("inner-address-invalid", downlink(strict(lambda t, c: no_host(c.source) or no_host(c.destination)))),
    Intended("source-outside", downlink(strict(lambda t, c: c.source not in domain(t)))),
    Intended("destination-foreign", downlink(strict(lambda t, c: c.destination not in t.own))),
    Intended("v4-compatible", uplink(strict(lambda t, c: in_any(c.destination, "::/96")))),
    Intended("path-below-1280", lambda t, c, d: t.underlay_mtu < 1300 and (d.name, d.sit, d.tund) == ("wire.flags", 0, 2)),
    Intended("path-mtu-heard-of", path_mtu_heard_of),
    Intended("uplink-source-foreign", uplink(strict(lambda t, c: c.source not in t.own))),
    Intended("uplink-destination-own", uplink(strict(lambda t, c: c.destination in t.own))),
    Intended("martian-destination", uplink(strict(lambda t, c: c.destination in domain(t)
                                                  and is_martian(embedded(t, c.destination))))),
    Intended("uplink-hop-limit-zero", uplink(lambda t, c: t.ttl is None and c.packet[7] == 0)),
]

#: With IPv4 inside.
IPV4_TABLE = [
    Intended("port-unreachable", port_unreachable),
    Intended("inner-address-invalid", downlink(strict_everywhere(lambda t, c: is_martian(c.source)))),
    Intended("ipv4-fragments", ipv4_fragments),
    Intended("fragmentation-needed", fragmentation_needed),
]

#: About ICMPv4 errors.
ERROR_TABLE = [Intended("icmp-translation", icmp_translation)]

NAMES = {entry.name for entry in TABLE + IPV4_TABLE + ERROR_TABLE}

#: Those that sit's counters do not show.
UNCOUNTED = {"port-unreachable", "embedded-multicast", "fragmentation-needed"}


def explanations(tunnel: Tunnel, case: Case, difference: Difference) -> Iterator[Intended]:
    """The entries that explain one difference of a case, the most special one first."""
    table = ERROR_TABLE if case.error else IPV4_TABLE if tunnel.carries_ipv4 else TABLE
    return (entry for entry in table if entry.explains(tunnel, case, difference))


def is_counted_elsewhere(tunnel: Tunnel, case: Case) -> bool:
    """Whether the two may count a case differently though nothing else shows: tund has a check against it that sit has not, and sit
    drops it for another reason, or later."""
    drop = Difference("device" if case.way == "wire" else "wire", [case.packet], [])
    if any(entry.name not in UNCOUNTED for entry in explanations(tunnel, case, drop)):
        return True
    if not tunnel.prefix or case.way != "wire":
        return False
    # Not forwarded into a domain's prefix, it goes back to sit, which sends it to the host itself, where it is spoofed.
    if case.destination == IPv6Address(f"::{tunnel.local}"):
        return True
    # No host of the domain, in 6to4 a private one; to sit the inner source is a wrong one.
    outer = case.outer_source
    is_6to4 = (tunnel.prefix, tunnel.relay_prefix) == ("2002::/16", "0.0.0.0/0")
    return tunnel.source_check == "strict" and (
        is_martian(outer) or outer not in tunnel.network or is_6to4 and in_any(outer, *PRIVATE))
