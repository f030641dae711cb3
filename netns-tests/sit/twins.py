"""Two hosts that differ in one thing: one has kernel sit, the other tund. Each has a wire and a pod's wire of its own:

     far end                      host                             pod
    packet socket ----- eth0 [ sit1 or tund0 ] pod0 ------ packet socket
                                   |
                             packet socket

Every packet carries its tag, IPv6 in the flow label, so that many can be under way at once and each result finds its cause.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from ipaddress import IPv6Network

from errors import Error
from lab import PATIENCE, Lab, Namespace
from octets import IPV6, ipv6, tag_of
from tunnels import NEXT_HOPS, OTHER_LOCAL


@dataclass
class Outcome:
    """What came of one packet."""

    #: IPv4 packets that the host sent to the far end.
    wire: list[bytes] = field(default_factory=list)
    #: Packets that the tunnel device gave to the host.
    device: list[bytes] = field(default_factory=list)
    #: Packets that the host sent to the pod: what it forwarded, and errors about what the pod sent.
    pod: list[bytes] = field(default_factory=list)


class Twin:
    """A host whose tunnel device is called `device`. What only one of them has is for the subclasses."""

    device: str
    #: Whether what the host learns of routes is kept from one packet to the next.
    keeps_routes = False

    def __init__(self, lab: Lab):
        self.lab = lab
        self.host, self.far = lab.namespace(f"host-{self.device}"), lab.namespace(f"far-{self.device}")
        self.host.sysctl(ipv6__conf__default__router_solicitations=0, ipv6__auto_flowlabels=0, ipv6__icmp__ratemask=255,
                         ipv4__icmp_ratemask=0, ipv6__conf__all__forwarding=1, ipv4__conf__all__rp_filter=0)
        for interface in ("eth0", "pod0"):
            lab.veth(self.host, interface, self.far, interface, mtu=9000)
            self.far.sysctl(**{f"ipv6__conf__{interface}__disable_ipv6": 1})
        self.host.sysctl(ipv6__conf__eth0__disable_ipv6=1)
        self.host.ip("link set eth0 arp off", "link set pod0 arp off")
        self.wire, self.pod = (lab.packet_socket(self.far, name, self._mac(name)) for name in ("eth0", "pod0"))
        self.tap = None
        # The host's own multicast reports, and redirects, which are longer where a device has an address, would be counted.
        self.host.run(["nft", "add table ip6 quiet;"
                       " add chain ip6 quiet output { type filter hook output priority 0; };"
                       f" add rule ip6 quiet output oifname {self.device} ip6 daddr ff00::/8 drop;"
                       " add rule ip6 quiet output icmpv6 type nd-redirect drop"])
        with self.host.entered():
            self._flush = os.open("/proc/sys/net/ipv4/route/flush", os.O_WRONLY)

    def _mac(self, interface: str) -> str:
        return self.host.run(f"cat /sys/class/net/{interface}/address").stdout.strip()

    def become(self, tunnel) -> None:
        """Takes the tunnel's addresses and makes its device, in place of what was there before."""
        self.tunnel = tunnel
        self.remove_device()
        self.flush_routes()
        self.host.ip(
            f"link set eth0 mtu {tunnel.underlay_mtu}",
            "addr flush dev eth0",
            f"addr add {tunnel.local}/24 brd + dev eth0",
            f"addr add {OTHER_LOCAL}/24 brd + dev eth0",
            "route replace default dev eth0",
        )
        self.make_device()
        self.host.ip(
            # Each gives itself other addresses, sit also ones that no TUN can have.
            f"addr flush dev {self.device}",
            *tunnel.inside(self.device),
            *(f"route replace {prefix} dev pod0" for prefix in tunnel.pods),
        )
        for interface in (self.device, "pod0"):
            self.host.sysctl(**{f"ipv4__conf__{interface}__forwarding": int(tunnel.carries_ipv4)})
        self.tap = self.lab.packet_socket(self.host, self.device)

    def remove_device(self) -> None:
        if self.tap:
            self.tap.close()
            self.tap = None

    def make_device(self) -> None:
        raise NotImplementedError

    def flush_routes(self) -> None:
        """What the host learnt of paths is forgotten, and which ones were chosen."""
        os.pwrite(self._flush, b"1\n", 0)

    def forget_routes(self) -> None:
        """For what a host keeps from one packet to the next."""

    def counters(self) -> dict[str, int]:
        """By the names of a sit interface's."""
        raise NotImplementedError

    def await_errors(self) -> None:
        """Until the host has dealt with the ICMPv4 errors that were sent to it. The kernel does so at once."""

    def hear(self, errors: list[bytes]) -> None:
        """Lets the host hear of errors; nothing goes out through the tunnel meanwhile."""
        self.wire.send(*errors)
        self.await_errors()
        self._await_downlink()

    def send(self, case) -> None:
        if not self.keeps_routes:
            self.forget_routes()
        match case.way:
            case "device":
                self.tap.send(case.packet)
            case "pod":
                self.pod.send(case.packet)
                self._await_pod()
            case "wire":
                self.wire.send(case.packet)

    def _await_pod(self) -> None:
        """Until the host has dealt with what the pod sent: a packet from the pod to itself goes the same way."""
        label = 0xFFFF0
        self.pod.send(ipv6(self.tunnel.pod, self.tunnel.other_pod, label=label))
        before, mark = self.pod.receive_until(lambda packet: tag_of(packet) == label)
        assert mark, "the host does not forward from the pod to itself"
        self.seen_at_pod += before

    def observe(self, cases) -> dict[int, Outcome]:
        """Sends the cases' packets, and returns what came of each, by its tag."""
        for opened in (self.wire, self.pod, self.tap):
            opened.drain()
        self.seen_at_pod: list[bytes] = []
        for case in cases:
            self.send(case)
        if any(case.error for case in cases):
            self.await_errors()
        to_device, to_wire = self.settle()
        outcomes: defaultdict[int, Outcome] = defaultdict(Outcome)
        for packet in to_device:
            outcomes[tag_of(packet)].device.append(packet)
        for packet in self.seen_at_pod + self.pod.drain():
            outcomes[tag_of(packet)].pod.append(packet)
        fragments: dict[bytes, int] = {}
        for packet in to_wire:
            is_first = int.from_bytes(packet[6:8], "big") & 0x1FFF == 0
            key = packet[4:6] + packet[12:20]
            if is_first:
                fragments[key] = tag_of(packet)
            outcomes[fragments.get(key, 0)].wire.append(packet)
        return outcomes

    def settle(self) -> tuple[list[bytes], list[bytes]]:
        """Until all that was sent has been dealt with, also what turned round on its way: (to the device, to the wire)."""
        to_wire = self._await_uplink()
        to_device = self._await_downlink()
        return to_device, to_wire + self._await_uplink()

    def _await_uplink(self) -> list[bytes]:
        label = 0xFFFF1
        if not self.keeps_routes:
            self.forget_routes()
        self.tap.send(self.tunnel.to_peer(label))
        to_wire, sent = self.wire.receive_until(lambda packet: tag_of(packet) == label)
        assert sent, f"{self.device}: a good packet is not sent"
        return to_wire

    def _await_downlink(self) -> list[bytes]:
        label = 0xFFFF2
        self.wire.send(self.tunnel.from_peer(label))
        to_device, arrived = self.tap.receive_until(lambda packet: tag_of(packet) == label)
        assert arrived, f"{self.device}: a good packet from the wire does not arrive"
        return to_device


class SitTwin(Twin):
    device = "sit1"

    def remove_device(self) -> None:
        super().remove_device()
        with contextlib.suppress(RuntimeError):
            self.host.ip("link del sit1")

    def make_device(self) -> None:
        self.host.ip(f"link add sit1 type sit {self.tunnel.sit_options}", f"link set sit1 mtu {self.tunnel.mtu} up")

    def forget_routes(self) -> None:
        """sit in a domain keeps the route of whatever peer came first, for all of them."""
        self.flush_routes()

    def counters(self) -> dict[str, int]:
        lines = self.host.run(["sh", "-c", "cd /sys/class/net/sit1/statistics && grep . *"]).stdout.splitlines()
        return {name: int(value) for name, value in (line.split(":") for line in lines)}


def silence_tunnel4(host: Namespace) -> None:
    """While sit is loaded, tunnel4 answers each packet that no sit device takes, though tund does take it."""
    host.run(["nft", "add table ip quiet;"
              " add chain ip quiet output { type filter hook output priority 0; };"
              " add rule ip quiet output icmp type destination-unreachable icmp code port-unreachable drop"])


class TundTwin(Twin):
    device = "tund0"
    process = None

    def __init__(self, lab: Lab):
        super().__init__(lab)
        silence_tunnel4(self.host)

    def remove_device(self) -> None:
        super().remove_device()
        if self.process:
            self.process.stop()

    def make_device(self) -> None:
        self.process = self.lab.tund(self.host, self.tunnel.tund_options)

    def become(self, tunnel) -> None:
        super().become(tunnel)
        if tunnel.next_hops:
            self._await_next_hops()

    def _await_next_hops(self) -> None:
        """tund follows the kernel's routes a moment after they were made, all of them together."""
        label, (prefix, host) = 0xFFFF6, NEXT_HOPS[0]
        probe = ipv6(self.tunnel.pod, IPv6Network(prefix)[1], label=label)
        end = time.monotonic() + PATIENCE
        followed = False
        while not followed:
            assert time.monotonic() < end, f"{prefix} does not go to {host}"
            self.tap.send(probe)
            followed = any(tag_of(packet) == label and packet[9] == IPV6 for packet in self.settle()[1])

    def counters(self) -> dict[str, int]:
        return self.process.sit_counters()

    def await_errors(self) -> None:
        """A thread of its own reads them in their order; the last one here is of a kind that means nothing to anybody."""
        mark = Error("mark", 12, 2)
        name = f"icmp.{mark.kind}/{mark.code}"
        before = self.process.counters()[name]
        self.wire.send(mark.about(self.tunnel.from_here(0xFFFF3), self.tunnel))
        self.process.counters_once(lambda counters: counters[name] > before)
