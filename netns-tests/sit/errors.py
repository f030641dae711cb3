"""ICMPv4 errors about what a host sent, as routers and hosts of the underlay send them, and as nobody should.

Neither sit nor tund remembers what it sent: each judges an error by the packet that it quotes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from checksum import folded
from octets import ICMP, icmp, ipv4
from tunnels import OTHER_LOCAL, Tunnel

ROUTER = "198.51.100.9"

#: What the inner source is told, {ICMPv4 (type, code): ICMPv6 (type, code)}, and what is not for it.
TRANSLATED = {(3, code): (1, 3) for code in range(16) if code not in (4, 5)} | {(11, 0): (3, 0)}
UNTRANSLATED = [(3, 4), (3, 5), (3, 16), (11, 1), (12, 0), (4, 0), (5, 0), (5, 1), (5, 2), (5, 3)]

#: The next-hop MTU of an error that shall teach none: paths do not grow by ICMP.
NO_NEWS = 0xFFFF

#: RFC 4884 with an MPLS label stack (RFC 4950), behind so many bytes of the packet.
QUOTE_LENGTH = 128
_OBJECT = struct.pack("!HBBI", 8, 1, 1, 0x00019140)
EXTENSION = b"\x20\0" + (0xFFFF - folded(b"\x20\0\0\0" + _OBJECT)).to_bytes(2, "big") + _OBJECT


@dataclass(frozen=True)
class Error:
    family: str
    kind: int
    code: int
    #: What is quoted of a tunnel packet.
    quote: Callable[[bytes], bytes] = field(default=bytes, repr=False)
    #: The second word of the header.
    rest: int = NO_NEWS
    extension: bytes = b""
    #: Whether the quote shows whose packet it was, and is one that this host may have sent.
    tells_source: bool = True

    def about(self, sent: bytes, tunnel: Tunnel) -> bytes:
        """The error about a tunnel packet, as it arrives."""
        message = icmp(self.kind, self.code, self.quote(sent) + self.extension, rest=self.rest)
        return ipv4(ROUTER, tunnel.local, message, ident=1, protocol=ICMP, fragment=0)

    @property
    def translation(self) -> tuple[int, int] | None:
        """Type and code of what the inner source is to be told."""
        return TRANSLATED.get((self.kind, self.code)) if self.tells_source else None


def first(count: int) -> Callable[[bytes], bytes]:
    """The outer header, and so much of the inner packet."""
    return lambda sent: sent[: 20 + count]


def forged(source, destination, **fields) -> Callable[[bytes], bytes]:
    """The inner packet behind another outer header."""
    return lambda sent: ipv4(source, destination, sent[20:], **{"ident": 1, **fields})


def with_inner(at: int, octets: bytes) -> Callable[[bytes], bytes]:
    """With other octets in the inner packet."""
    return lambda sent: sent[: 20 + at] + octets + sent[20 + at + len(octets) :]


def errors_for(tunnel: Tunnel) -> list[Error]:
    errors = [Error("ICMPv4 error", *kind) for kind in [*TRANSLATED, *UNTRANSLATED]]
    gateway = int(IPv4Address(tunnel.peer))
    errors += [Error("ICMPv4 redirect", 5, code, rest=gateway) for code in range(4)]
    elsewhere = "198.51.100.77"
    lies = {
        "outer source": forged(OTHER_LOCAL, tunnel.peer),
        "outer destination": forged(tunnel.local, elsewhere),
        "outer protocol": forged(tunnel.local, tunnel.peer, protocol=17),
    }
    if tunnel.prefix:
        beside = str(IPv4Address(int(IPv4Address(tunnel.peer)) ^ 1))
        # Point to point any inner destination will do; and a later fragment is a short quote.
        lies |= {
            "later fragment": forged(tunnel.local, tunnel.peer, fragment=100),
            "inner destination of another host": with_inner(24, tunnel.owned_by(beside)[1].packed),
            "inner destination outside": with_inner(24, bytes.fromhex("26207777") + bytes(12)),
        }
        if tunnel.source_check == "strict":
            lies["inner source"] = with_inner(8, tunnel.there.packed)
    for kind in ((3, 1), (3, 3), (11, 0)):
        errors += [Error("quote of the least length", *kind, first(length)) for length in (48, 49)]
        if tunnel.prefix:
            errors += [Error("short quote", *kind, first(length), tells_source=False) for length in (8, 40, 47)]
        errors.append(Error("quote with an extension", *kind, first(QUOTE_LENGTH - 20), rest=QUOTE_LENGTH // 4 << 16,
                            extension=EXTENSION))
        errors += [Error(f"forged {what}", *kind, quote, tells_source=False) for what, quote in lies.items()]
    return errors


#: Too short to show whose packet it was; those that sit keeps in mind, and those that it does not.
SHORT = [Error("short quote", *kind, first(length), tells_source=False)
         for kind in ((3, 1), (3, 3), (11, 0), (3, 5), (11, 1), (12, 0)) for length in (8, 40)]


def fragmentation_needed(mtu: int, quote: Callable[[bytes], bytes]) -> Error:
    return Error("fragmentation needed", 3, 4, quote, rest=mtu)
