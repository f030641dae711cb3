"""The packets that go through both, made for a configuration."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from errors import ROUTER, Error
from octets import DF, ICMPV6, IPIP, IPV6, MF, NOBODYS, NO_NEXT_HEADER, ipv4, ipv6
from tunnels import HERE4, NEXT_HOPS, OTHER_LOCAL, OUTSIDE, OUTSIDE_POD, POD4, THERE4, Tunnel

#: As many packets as every queue on the way can hold.
AT_ONCE = 100


@dataclass(frozen=True)
class Case:
    """One packet. It is put on the tunnel device as the host's stack does ("device"), sent by the pod ("pod"), or comes
    from the underlay ("wire")."""

    tag: int
    family: str
    way: str
    packet: bytes
    #: The addresses, as the packet has them; the outer ones are None on the uplink.
    source: IPv6Address | IPv4Address
    destination: IPv6Address | IPv4Address
    outer_source: IPv4Address | None = None
    outer_destination: IPv4Address | None = None
    inner: bytes = field(default=b"", repr=False)
    #: What the packet is, if it is an ICMPv4 error.
    error: Error | None = None

    def __str__(self) -> str:
        outer = f" in {self.outer_source} > {self.outer_destination}" if self.way == "wire" else ""
        return f"{self.family}, {self.way}: {self.source} > {self.destination}{outer}, {len(self.packet)} bytes"


#: Addresses that no other host of the underlay can have.
MARTIANS = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"]

DSCPS = [0, 0xB8, 0xFC, 0x04]


class Generator:
    """Makes the cases of one tunnel."""

    #: No number is used twice in a run: what comes late (an error about a fragment that stayed alone) is nobody's then.
    _tags = itertools.count(1)

    def __init__(self, tunnel: Tunnel, random):
        self.tunnel, self.random = tunnel, random
        self.cases: list[Case] = []
        self.tag = next(self._tags)

    def up(self, family: str, *, source=None, destination=None, payload=None, way="device", **fields) -> None:
        """A packet on its way into the tunnel: from the pod to the peer, but for what is given."""
        t = self.tunnel
        source, destination = IPv6Address(source or t.pod), IPv6Address(destination or t.there)
        payload = self.payload() if payload is None else payload
        packet = ipv6(source, destination, payload, label=self.tag, **fields)
        self._add(family, way, packet, source, destination)

    def down(self, family: str, *, source=None, destination=None, outer_source=None, outer_destination=None, payload=None,
             inner=lambda packet: packet, outer=lambda packet: packet, outer_fields=(), **fields) -> None:
        """A packet out of the tunnel: from the peer to the pod. `inner` and `outer` change the packet's octets."""
        t = self.tunnel
        source, destination = IPv6Address(source or t.there), IPv6Address(destination or t.pod)
        outer_source = IPv4Address(outer_source or t.peer)
        outer_destination = IPv4Address(outer_destination or t.local)
        payload = self.payload() if payload is None else payload
        inside = inner(ipv6(source, destination, payload, label=self.tag, **fields))
        packet = outer(ipv4(outer_source, outer_destination, inside, **{"ident": self.tag, **dict(outer_fields)}))
        self._add(family, "wire", packet, source, destination, outer_source, outer_destination, inside)

    def _add(self, family, way, packet, *addresses) -> None:
        self.cases.append(Case(self.tag, family, way, packet, *addresses))
        self.tag = next(self._tags)

    def up4(self, family: str, *, source=POD4, destination=THERE4, size=64, way="device", **fields) -> None:
        """`up` with IPv4 inside."""
        packet = ipv4(source, destination, self.payload4(size), ident=self.tag, protocol=NOBODYS, **{"fragment": 0, **fields})
        self._add(family, way, packet, IPv4Address(source), IPv4Address(destination))

    def down4(self, family: str, *, source=THERE4, destination=POD4, outer_source=None, outer_fields=(), size=64,
              **fields) -> None:
        t = self.tunnel
        outer_source, outer_destination = IPv4Address(outer_source or t.peer), IPv4Address(t.local)
        inside = ipv4(source, destination, self.payload4(size), ident=self.tag, protocol=NOBODYS, **{"fragment": 0, **fields})
        packet = ipv4(outer_source, outer_destination, inside, ident=self.tag, protocol=IPIP, **dict(outer_fields))
        self._add(family, "wire", packet, IPv4Address(source), IPv4Address(destination), outer_source, outer_destination, inside)

    def payload4(self, size: int) -> bytes:
        """That makes a packet of `size` bytes, tagged."""
        return self.tag.to_bytes(4, "big") + bytes(4) + self.payload(max(0, size - 28))

    def payload(self, size: int = 24) -> bytes:
        return self.random.randbytes(size)

    # Uplink.

    def headers_up(self) -> None:
        for ecn in range(4):
            for dscp in DSCPS:
                self.up("ECN and DSCP, uplink", tclass=dscp | ecn)
        for hops in (0, 1, 2, 63, 64, 65, 254, 255):
            self.up("hop limit, uplink", hops=hops)
        for hops in (1, 2, 65, 255):
            self.up("hop limit, uplink", hops=hops, way="pod")

    def sizes_up(self) -> None:
        path = self.tunnel.underlay_mtu - 20
        edges = [edge + step for edge in (1280, path, self.tunnel.mtu) for step in (-1, 0, 1)]
        for size in sorted({40, 41, 1400, *edges}):
            for way in ("device", "pod") if size <= self.tunnel.mtu else ("pod",):
                self.up("size, uplink", payload=self.payload(size - 40), way=way)

    def destinations_up(self) -> None:
        t = self.tunnel
        for host in t.hosts(self.random, 6):
            self.up("destination in the domain", destination=t.owned_by(host)[self.random.getrandbits(24)])
        # What sit answers with address unreachable it answers only to what came by a route.
        self.up("destination outside", destination=OUTSIDE[1], way="pod")
        self.up("destination outside", destination=f"::{t.peer}", way="pod")
        self.up("destination outside", destination=f"::ffff:{t.peer}", way="pod")
        self.up("multicast and link-local, uplink", destination="ff02::1", hops=1)
        self.up("multicast and link-local, uplink", destination="ff0e::1:2")
        self.up("multicast and link-local, uplink", destination="fe80::1")
        self.up("own destination", destination=t.own[99])
        if t.prefix and t.relay_prefix == "0.0.0.0/0":
            for host in MARTIANS:
                self.up("martian destination", destination=t.owned_by(host)[1], way="pod")
        if t.prefix:
            broadcast = str(IPv4Address(int(IPv4Address(t.local)) | 255))
            if broadcast != t.local and IPv4Address(broadcast) in t.network:
                self.up("martian destination", destination=t.owned_by(broadcast)[1], way="pod")

    def sources_up(self) -> None:
        t = self.tunnel
        for source in (t.here, t.own[0x1234], OUTSIDE_POD[5], OUTSIDE[7], t.there, "::", "::1", "fe80::1", "ff02::1",
                       f"::ffff:{t.local}"):
            self.up("source, uplink", source=source)

    def malformed_up(self) -> None:
        self.up("length, uplink", payload=self.payload(64), length=24)
        self.up("length, uplink", payload=self.payload(24), length=64)
        self.up("length, uplink", payload=self.payload(24), length=0)
        for nh in (IPIP, IPV6):
            self.up("nested tunnel, uplink", nh=nh)

    def next_hops_up(self) -> None:
        for prefix, _ in NEXT_HOPS:
            for host in (1, 0x99):
                self.up("next hop", destination=IPv6Network(prefix)[host], way="pod")
        # Beside the longer one of them, and beside both.
        self.up("next hop", destination="2620:88:2::1", way="pod")
        self.up("next hop", destination="2620:89::1", way="pod")

    # IPv4 inside.

    def headers4(self) -> None:
        for ecn in range(4):
            for dscp in DSCPS:
                self.up4("ECN and DSCP, uplink", tos=dscp | ecn)
            for outer in range(4):
                self.down4("ECN, downlink", tos=0xB8 | ecn, outer_fields=dict(tos=0x04 | outer))
                self.down4("ECN, downlink", tos=ecn, outer_fields=dict(tos=outer))
        for fragment, way in itertools.product((0, DF), ("device", "pod")):
            self.up4("DF, uplink", fragment=fragment, way=way)
            self.down4("DF, downlink", fragment=fragment, outer_fields=dict(fragment=fragment))
        self.up4("fragment, uplink", fragment=MF)
        self.up4("fragment, uplink", fragment=5)
        for ttl in (1, 2, 63, 64, 65, 255):
            self.up4("TTL, uplink", ttl=ttl)
            self.up4("TTL, uplink", ttl=ttl, way="pod")
            if ttl > 1:
                self.down4("TTL, downlink", ttl=ttl, outer_fields=dict(ttl=257 - ttl))

    def sizes4(self) -> None:
        path = self.tunnel.underlay_mtu - 20
        for size, fragment in itertools.product((28, 29, 1400, path - 1, path, path + 1, self.tunnel.mtu), (0, DF)):
            # The kernel tells only those of its own that something is too big that came by a route.
            for way in ("device", "pod") if size <= path or not fragment else ("pod",):
                self.up4("size, uplink", size=size, fragment=fragment, way=way)
        for size in (28, 29, 1280, path - 1, path):
            self.down4("size, downlink", size=size)

    def addresses4(self) -> None:
        t = self.tunnel
        for source in ("10.1.2.3", "0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", t.local, t.peer):
            self.up4("source, uplink", source=source)
            self.down4("source, downlink", source=source)
        for destination in ("10.1.2.3", "0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255", t.peer, HERE4):
            self.up4("destination, uplink", destination=destination)
        for destination in ("198.51.100.77", "0.0.0.0", "127.0.0.1", "224.0.0.5"):
            self.down4("destination, downlink", destination=destination)
        for outer_source in (*MARTIANS, t.local, OTHER_LOCAL, "198.51.100.200"):
            self.down4("odd outer source", outer_source=outer_source)

    # Downlink.

    def headers_down(self) -> None:
        for inner in range(4):
            for outer in range(4):
                self.down("ECN, downlink", tclass=0xB8 | inner, outer_fields=dict(tos=0x04 | outer))
                self.down("ECN, downlink", tclass=inner, outer_fields=dict(tos=outer))
        for hops in (0, 1, 2, 64, 255):
            for ttl in (1, 64, 255):
                self.down("hop limit, downlink", hops=hops, outer_fields=dict(ttl=ttl))
        for fragment in (0, 0x8000):
            self.down("outer header", outer_fields=dict(fragment=fragment))
        self.down("outer header", outer_fields=dict(ident=0))
        self.down("outer header", outer_fields=dict(options=b"\1\1\1\1"))
        self.down("outer header", outer_fields=dict(options=b"\x07\x07\x04\0\0\0\0\0"))
        self.down("outer header", outer_fields=dict(right_checksum=False))
        self.down("outer header", outer_fields=dict(version=5))
        self.down("outer header", outer_fields=dict(fragment=MF))
        self.down("outer header", outer_fields=dict(fragment=1))

    def sizes_down(self) -> None:
        for size in (0, 1, 1239, 1240, 1241, 1400, 1439, 1440):
            if size + 60 <= self.tunnel.underlay_mtu:
                self.down("size, downlink", payload=self.payload(size))

    def addresses_down(self) -> None:
        t = self.tunnel
        hosts = t.hosts(self.random, 4)
        for host in hosts:
            self.down("source in the domain", source=t.owned_by(host)[self.random.getrandbits(24)], outer_source=host)
            self.down("spoofed source", source=t.owned_by(host)[1])
            self.down("spoofed source", outer_source=host)
        self.down("spoofed source", source=t.here)
        self.down("spoofed source", source=t.own[9], outer_source=OTHER_LOCAL)
        self.down("source outside", source=OUTSIDE[1])
        self.down("source outside", source=OUTSIDE_POD[1])
        for source in ("::", "::1", f"::{t.peer}", f"::ffff:{t.peer}", "fe80::1", "fec0::1", "ff02::1", "ff0e::1"):
            self.down("invalid source", source=source)
        for destination in (t.here, t.own[0], t.own[0xFFFF], t.other_pod):
            self.down("own destination, downlink", destination=destination)
        self.down("foreign destination", destination=t.owned_by(hosts[0])[1])
        self.down("foreign destination", destination=t.there)
        self.down("foreign destination", destination=OUTSIDE[1])
        self.down("foreign destination", destination=OUTSIDE_POD[1])
        for destination in ("::", "::1", f"::{t.local}", f"::ffff:{t.local}", "fe80::1", "ff02::1", "ff01::1", "ff0e::1"):
            self.down("invalid destination", destination=destination)
        for outer_source in [*MARTIANS, t.local, OTHER_LOCAL, "198.51.100.200", "10.200.0.1"]:
            self.down("odd outer source", outer_source=outer_source)
        broadcast = IPv4Address(int(IPv4Address(t.local)) | 255)
        for outer_destination in (OTHER_LOCAL, "224.0.0.1", "255.255.255.255", "127.0.0.1", "198.51.100.201", broadcast):
            self.down("odd outer destination", outer_destination=outer_destination)

    def malformed_down(self) -> None:
        for version in (0, 4, 5, 7, 15):
            self.down("inner version", version=version)
        for length in (0, 8, 20, 39, 40, 41, 63):
            self.down("short", inner=lambda packet, length=length: packet[:length])
        for padding in (1, 8, 100):
            self.down("padded", inner=lambda packet, padding=padding: packet + bytes(padding))
        for length in (0, 8, 23, 25, 1000, 65535):
            self.down("payload length", length=length)
        self.down("short", outer=lambda packet: packet[:-10])
        self.down("padded", outer=lambda packet: packet + bytes(20))
        for nh in (IPIP, IPV6, ICMPV6, 0, 43, 44, 60, 6, 17):
            extension = bytes([NO_NEXT_HEADER]) + bytes(23)
            self.down("nested tunnel, downlink" if nh in (IPIP, IPV6) else "next header", nh=nh, payload=extension)

    def at_random(self, count: int) -> None:
        """Everything at once, mostly good in each respect."""
        t, random = self.tunnel, self.random
        hosts = [t.peer, *t.hosts(random, 3)]

        def pick(usual, *others):
            return usual if random.random() < 0.7 else random.choice(others)

        for _ in range(count):
            host = random.choice(hosts) if t.prefix else t.peer
            common = dict(
                tclass=random.getrandbits(8), hops=pick(64, 1, 2, 255, random.randrange(1, 256)),
                payload=self.payload(random.choice([0, 8, 100, random.randrange(min(1200, t.underlay_mtu - 60))])),
                nh=pick(59, 253, 254),
            )
            there = pick(t.owned_by(host)[random.getrandbits(24)], t.owned_by(random.choice(hosts))[1], OUTSIDE[3])
            here = pick(t.pod, t.own[random.getrandbits(16)], OUTSIDE_POD[random.getrandbits(8)])
            if random.random() < 0.4:
                self.up("random", source=here, destination=there, way=random.choice(["device", "pod"]), **common)
            else:
                outer = dict(tos=random.getrandbits(8), ttl=random.randrange(1, 256), ident=random.getrandbits(16),
                             fragment=random.choice([0, 0x4000]))
                self.down("random", source=there, destination=here, outer_source=pick(host, *hosts), outer_fields=outer,
                          **common)


def error_about(case: Case, sent: bytes, error: Error, tunnel: Tunnel) -> Case:
    """An ICMPv4 error about a case that was sent to the underlay; it is tagged by what it quotes."""
    packet, outer = error.about(sent, tunnel), (IPv4Address(ROUTER), IPv4Address(tunnel.local))
    return Case(case.tag, f"{error.family} {error.kind}/{error.code}", "wire", packet, case.source, case.destination, *outer,
                error=error)


def batches_for(tunnel: Tunnel, random) -> list[list[Case]]:
    """The cases that go through a tunnel, each time as many as may go at once."""
    generator = Generator(tunnel, random)
    if tunnel.carries_ipv4:
        generator.headers4()
        generator.sizes4()
        generator.addresses4()
        return cut(generator.cases)
    generator.headers_up()
    generator.sizes_up()
    if tunnel.next_hops:
        generator.next_hops_up()
    if tunnel.everything:
        generator.destinations_up()
        generator.sources_up()
        generator.headers_down()
        generator.sizes_down()
        generator.addresses_down()
        generator.malformed_up()
        generator.malformed_down()
    generator.at_random(20)
    return cut(generator.cases)


def cut(cases: list[Case]) -> list[list[Case]]:
    return [cases[start : start + AT_ONCE] for start in range(0, len(cases), AT_ONCE)]
