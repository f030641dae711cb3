"""The configurations in which kernel sit and tund are held against each other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import sixrd
from octets import IPIP, IPV6, NOBODYS, ipv4, ipv6


@dataclass(frozen=True)
class Tunnel:
    """One configuration, in words of both programs. None for `ttl` and `tos`: inherited."""

    local: str
    peer: str
    #: The domain; without a prefix the tunnel is point to point.
    prefix: str | None = None
    relay_prefix: str = "0.0.0.0/0"
    ttl: int | None = 64
    tos: int | None = 0
    pmtudisc: bool = True
    #: Of the tunnel device, and of the interface below.
    mtu: int = 1480
    underlay_mtu: int = 1500
    source_check: str = "sit"
    #: What is inside: IPv4 in other modes than this one.
    mode: str = "ip6ip"
    #: Whether there are routes with an IPv4 host as their next hop.
    next_hops: bool = False
    #: Whether every kind of case goes through it, or only those that the outer header's options are about.
    everything: bool = True

    def __str__(self) -> str:
        words = [f"{self.prefix} {self.relay_prefix} {self.local}" if self.prefix else "remote"]
        words += [f"{name}-{getattr(self, name)}"
                  for name, field in self.__dataclass_fields__.items()
                  if name not in ("local", "peer", "prefix", "relay_prefix", "everything")
                  and getattr(self, name) != field.default]
        return " ".join(words).replace("None", "inherit")

    @property
    def sit_options(self) -> str:
        words = [f"mode {self.mode}", f"local {self.local}", f"ttl {self.ttl or 'inherit'}",
                 f"tos {'inherit' if self.tos is None else hex(self.tos)}", "pmtudisc" if self.pmtudisc else "nopmtudisc"]
        if self.prefix:
            words += [f"6rd-prefix {self.prefix}", f"6rd-relay_prefix {self.relay_prefix}"]
        else:
            words += [f"remote {self.peer}"]
        return " ".join(words)

    @property
    def tund_options(self) -> str:
        words = [f"--local {self.local}", f"--ttl {self.ttl or 'inherit'}",
                 f"--tos {'inherit' if self.tos is None else self.tos}", "--pmtudisc" if self.pmtudisc else "--no-pmtudisc",
                 f"--mtu {self.mtu}", "--workers 1",
                 f"--source-check {self.source_check}"]
        if self.prefix:
            words += [f"--6rd-prefix {self.prefix}", f"--6rd-relay-prefix {self.relay_prefix}", "--address none"]
        else:
            words += [f"--remote {self.peer}", f"--mode {self.mode}"]
            words += [] if self.carries_ipv4 else [f"--address {self.here}/128"]
        return " ".join(words)

    def inside(self, device: str) -> list[str]:
        """`ip` subcommands for the addresses and routes of the tunnel device."""
        if self.carries_ipv4:
            return [f"addr add {HERE4}/32 dev {device}", f"route add {NET4} dev {device}", f"route replace {POD_NET4} dev pod0"]
        return [
            f"addr add {self.here}/128 dev {device} nodad",
            *([] if self.prefix else [f"addr add fe80::{self.local}/64 dev {device} nodad"]),
            f"route add ::/0 dev {device}",
            *(f"route add {prefix} via ::{host} dev {device} onlink" for prefix, host in NEXT_HOPS if self.next_hops),
        ]

    @property
    def carries_ipv4(self) -> bool:
        return self.mode != "ip6ip"

    @property
    def network(self) -> IPv4Network:
        return IPv4Network(self.relay_prefix)

    def owned_by(self, host: str) -> IPv6Network:
        """The prefix behind a host. Point to point there are no rules; then it is as in 6to4, which is as good as any."""
        return sixrd.delegated(self.prefix or "2002::/16", self.relay_prefix, host)

    @property
    def own(self) -> IPv6Network:
        return self.owned_by(self.local)

    @property
    def pods(self) -> list[IPv6Network]:
        """What the host forwards to the pod: its own prefix, and one outside the domain."""
        return [self.own, OUTSIDE_POD]

    @property
    def here(self) -> IPv6Address:
        return self.own[1]

    @property
    def pod(self) -> IPv6Address:
        return self.own[0x42]

    @property
    def other_pod(self) -> IPv6Address:
        return self.own[0x43]

    @property
    def there(self) -> IPv6Address:
        return self.owned_by(self.peer)[0x77]

    def from_peer(self, label: int) -> bytes:
        """A packet nothing can be said against, as it arrives from the underlay."""
        if self.carries_ipv4:
            inner = ipv4(THERE4, POD4, label.to_bytes(4, "big"), ident=1, protocol=NOBODYS)
            return ipv4(self.peer, self.local, inner, ident=1, protocol=IPIP)
        return ipv4(self.peer, self.local, ipv6(self.there, self.pod, label=label), ident=1)

    def to_peer(self, label: int) -> bytes:
        if self.carries_ipv4:
            return ipv4(POD4, THERE4, label.to_bytes(4, "big"), ident=1, protocol=NOBODYS)
        return ipv6(self.pod, self.there, label=label)

    def from_here(self, label: int) -> bytes:
        """What becomes of `to_peer` on the underlay."""
        return ipv4(self.local, self.peer, self.to_peer(label), ident=1, protocol=IPIP if self.carries_ipv4 else IPV6)

    def hosts(self, random, count: int) -> list[str]:
        """Other hosts of the domain: the peer alone where chance finds no further ones."""
        relay = self.network
        found: list[str] = []
        for _ in range(100 * count):
            host = relay[random.randrange(relay.num_addresses)]
            usable = host.is_global if relay.prefixlen == 0 else 0 < int(host) >> 24 < 224 and int(host) >> 24 != 127
            if usable and str(host) != self.local and int(host) & 255 not in (0, 255):
                found.append(str(host))
        return found[:count] or [self.peer]


#: A second address of the host, which is not the tunnel's.
OTHER_LOCAL = "203.0.113.77"

#: A network outside every domain that is behind the pod's wire, and one that is nowhere.
OUTSIDE_POD, OUTSIDE = IPv6Network("2620:41:41::/48"), IPv6Network("2620:77:77::/48")

#: With IPv4 inside: the tunnel device's address, the pod's, and one behind the peer, of these networks.
HERE4, POD4, THERE4 = "172.16.0.1", "172.16.1.5", "172.16.2.7"
POD_NET4, NET4 = "172.16.1.0/24", "172.16.2.0/24"

#: Prefixes outside the domain of SIX_RD, and one inside.
NEXT_HOPS = [("2620:88::/32", "10.77.1.1"), ("2620:88:1::/48", "192.0.2.9"), ("fd12:3456:7809:807::/64", "10.77.1.1")]

SIX_TO_FOUR = Tunnel("192.88.17.1", "198.18.5.6", "2002::/16")
SIX_RD = Tunnel("10.0.0.1", "10.9.8.7", "fd12:3456:7800::/40", "10.0.0.0/8")
REMOTE = Tunnel("192.0.2.1", "198.51.100.4")

#: From RFC 5969, from documents and tests of others, and from networks that are or were in use.
DOMAINS = [
    Tunnel("10.100.100.1", "10.0.0.1", "2001:db8::/32", "10.0.0.0/8"),
    Tunnel("10.100.200.2", "10.100.100.1", "2001:db8::/32", "10.0.0.0/8"),
    Tunnel("81.167.4.214", "81.167.4.1", "2a01:79c::/30"),
    Tunnel("185.227.123.123", "185.227.121.9", "2a02:58:54::/46", "185.227.120.0/22"),
    Tunnel("172.16.2.2", "172.17.3.3", "2002::/16", "172.0.0.0/8"),
    Tunnel("192.168.1.155", "192.168.1.200", "2001:db8:0:9b00::/56", "192.168.1.0/24"),
    Tunnel("10.1.2.3", "10.200.100.50", "fd12:3456:7800::/40", "10.0.0.0/8"),
    Tunnel("205.171.2.64", "205.171.2.65", "2602::/24"),
    Tunnel("85.0.1.2", "178.3.2.1", "2a02:1200::/28"),
    Tunnel("203.0.178.66", "203.0.179.1", "2001:4479::/32"),
    Tunnel("10.0.0.1", "10.0.0.2", "fd00::/8", "10.0.0.0/8"),
    Tunnel("10.20.30.40", "10.20.30.41", "fd00:1234:5678:9abc::/63", "10.20.30.40/31"),
    Tunnel("10.0.0.129", "10.1.2.3", "2001:db8:8000::/33", "10.0.0.0/7"),
    Tunnel("44.1.2.3", "44.3.2.1", "2001:db8:4000::/46", "44.0.0.0/14"),
]

#: A path that is narrower than the tunnel device.
IPV4_INSIDE = [replace(REMOTE, mode=mode, mtu=2000, **options) for mode in ("ipip", "any")
               for options in (dict(), dict(ttl=None, tos=None), dict(ttl=None, pmtudisc=False))]
IPV4_INSIDE += [replace(REMOTE, mode="any", mtu=2000, source_check="strict")]

#: In which ICMPv4 errors come.
OF_ERRORS = [replace(mode, source_check=level) for mode in (SIX_RD, SIX_TO_FOUR, REMOTE) for level in ("sit", "strict")]
OF_SOFT_ERRORS = [REMOTE, replace(REMOTE, ttl=None)]
OF_PATH_MTU = [SIX_RD, SIX_TO_FOUR, REMOTE]


def random_domain(random) -> Tunnel:
    """Any n and m that go together (net/ipv6/sit.c: n + 32 - m <= 64)."""
    m = random.randrange(0, 30)
    n = random.randrange(8, 32 + m + 1)
    # Inside 2000::/3, which no reserved range is part of, and for IPv4 inside 8.0.0.0/5 once that is narrow enough.
    prefix = IPv6Network((0x2A << 120 | random.getrandbits(120), n), strict=False)
    relay = IPv4Network((9 << 24 | random.getrandbits(24), m), strict=False)
    local = 9 << 24 | random.getrandbits(24)
    if m > 8:
        local = int(relay.network_address) | random.getrandbits(32 - m)
    local = local & ~0xFF | (local & 0xFF) % 254 + 1 if m < 24 else local
    peer = local ^ 1 << random.randrange(0, 32 - m if m > 8 else 20)
    return Tunnel(str(IPv4Address(local)), str(IPv4Address(peer)), str(prefix), str(relay))


def all_tunnels(random) -> list[Tunnel]:
    """Every mode with every TTL, TOS and DF; the strict source checks, of which sit has none; narrow paths; the domains."""
    # A fixed TTL forces DF in sit.
    headers = [dict(ttl=64), dict(ttl=7), dict(ttl=None), dict(ttl=None, pmtudisc=False)]
    tunnels = [replace(mode, tos=tos, everything=tos == 0 and header["ttl"] != 7, **header)
               for mode, tos, header in itertools.product((SIX_RD, SIX_TO_FOUR, REMOTE), (0, 0xB8, None), headers)]
    tunnels += [replace(mode, source_check="strict") for mode in (SIX_RD, SIX_TO_FOUR, REMOTE)]
    # A path that is narrower than the tunnel device.
    tunnels += [replace(mode, mtu=2000, underlay_mtu=underlay_mtu, everything=False, **header)
                for mode in (SIX_RD, REMOTE) for underlay_mtu in (1500, 1400, 1300, 1299, 600)
                for header in (dict(), dict(ttl=None, pmtudisc=False))]
    tunnels += IPV4_INSIDE
    tunnels += [replace(SIX_RD, next_hops=True, everything=False)]
    tunnels += DOMAINS
    tunnels += [random_domain(random) for _ in range(5)]
    return tunnels
