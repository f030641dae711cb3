"""A host with tund whose underlay ends in a packet socket: every packet there is the test's own.

        far end                          host
     packet socket ---veth--- eth0 10.0.0.1/8 ... tund ... tund0 --- packet socket
          |                                                               |
     sees whatever the host sends,                     sees whatever tund hands to the host,
     sends as any IPv4 host                            sends as any process of the host

The far end has no IPv4 stack: it never answers by itself. ARP is off, so the host sends to any address without asking.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from lab import PATIENCE, Lab
from packets import DOMAIN, HERE, LOCAL, PEER, THERE, echo_request, in_ipv4


@dataclass
class Observation:
    """What came of some packets."""

    #: By how much each counter rose; those that did not are absent.
    counters: Counter
    #: IPv6 and IPv4 packets that tund gave to the host.
    to_host: list[bytes]
    #: IPv4 packets, of any protocol, that the host sent to the far end.
    to_wire: list[bytes]


class HostOnAWire:
    def __init__(
        self,
        lab: Lab,
        options: str = DOMAIN,
        *,
        address: str = f"{LOCAL}/8",
        here: str = HERE,
        peer: str = PEER,
        there: str = THERE,
        mtu: int = 1500,
        before_tund=lambda host: None,
    ):
        """`here` and `there`: the overlay addresses of host and peer, between which a ping must pass. `before_tund`
        prepares the host. One worker unless `options` say otherwise: then packets are dealt with in their order."""
        self.local, self.peer, self.here, self.there = address.split("/")[0], peer, here, there
        self.host, self.far = lab.namespace("host"), lab.namespace("far")
        self.host.sysctl(ipv6__conf__default__router_solicitations=0)
        lab.veth(self.host, "eth0", self.far, "eth0", mtu=mtu)
        for end in (self.host, self.far):
            end.sysctl(ipv6__conf__eth0__disable_ipv6=1)
        self.host.ip(f"addr add {address} dev eth0", "link set eth0 arp off", "route add default dev eth0")
        self._silence_multicast()
        before_tund(self.host)
        workers = "" if "--workers" in options else "--workers 1"
        self.tund = lab.tund(self.host, f"--local {self.local} {options} {workers}")
        mac = self.host.run("cat /sys/class/net/eth0/address").stdout.strip()
        self.wire = lab.packet_socket(self.far, "eth0", mac)
        self.tun = lab.packet_socket(self.host, "tund0")

    def _silence_multicast(self) -> None:
        """The host's own multicast reports would disturb exact counts. (A packet socket passes below this rule.)"""
        self.host.run(["nft", "add table ip6 quiet;"
                       " add chain ip6 quiet output { type filter hook output priority 0; };"
                       " add rule ip6 quiet output oifname tund0 ip6 daddr ff00::/8 drop"])

    def settle(self, tries: int = 1) -> tuple[list[bytes], list[bytes]]:
        """A ping from the far end to the host and back, through the tunnel. With one worker and one queue everything
        sent before it has been dealt with once the reply is here. Returns (to_host, to_wire) up to then.

        More than one try only where a ping may be lost for a reason."""
        mark = os.urandom(16)
        request = bytes(echo_request(self.there, self.here, mark))
        to_wire: list[bytes] = []
        for _ in range(tries):
            self.wire.send(in_ipv4(request, self.peer, self.local))
            before, reply = self.wire.receive_until(lambda packet: is_echo_reply(packet, mark), PATIENCE / tries)
            to_wire += before
            if reply:
                return [packet for packet in self.tun.drain() if packet != request], to_wire
        raise AssertionError(f"a valid ping is not answered; instead:\n{show(to_wire)}\n{self.tund.transcript()}")

    def observe(self, *, from_wire=(), from_host=()) -> Observation:
        """Sends packets from the far end to the host's IPv4 stack, and from the host's IPv6 stack into the TUN."""
        self.wire.drain(), self.tun.drain()
        before = self.tund.counters()
        self.wire.send(*from_wire)
        self.tun.send(*from_host)
        to_host, to_wire = self.settle()
        # A packet is on the wire a moment before it is counted: what was seen there must be in.
        sent = 1 + sum(packet[9] in (4, 41) and int.from_bytes(packet[6:8], "big") & 0x1FFF == 0 for packet in to_wire)
        for _ in range(100):
            after = self.tund.counters()
            if after["uplink.packets"] - before["uplink.packets"] >= sent:
                break
        ping = Counter({"downlink.packets": 1, "downlink.bytes": 64, "uplink.packets": 1, "uplink.bytes": 64})
        after.subtract(before)
        after.subtract(ping)
        return Observation(Counter({name: rise for name, rise in after.items() if rise}), to_host, to_wire)


def is_echo_reply(packet: bytes, mark: bytes) -> bool:
    """Of a ping with this payload, in a tunnel packet. (Errors end with what they quote.)"""
    return packet[9] == 41 and packet[26] == 58 and packet[60] == 129 and packet.endswith(mark)


def show(packets: list[bytes]) -> str:
    """Packets for a failure's message."""
    return "\n".join(packet.hex() for packet in packets) or "nothing"
