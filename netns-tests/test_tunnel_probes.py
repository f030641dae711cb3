"""The probes that scanners look for open 6in4 hosts with (CVE-2025-23019; "Haunted by Legacy", USENIX Security 2025; the
kinds are those of the authors' tunneltester). An open host decapsulates what anybody sends, and answers or forwards it.

    scanner ------ eth0 host, tund0, pod0 ------ pod
    packet socket                                packet socket

The host forwards IPv6, and has a default route by which answers would leave it.
"""

import time

import pytest

from lab import Lab
from packets import DOMAIN, ICMPv6EchoReply, ICMPv6EchoRequest, in_ipv4, inner
from wire import HostOnAWire, show

SCANNER = "198.51.100.66"
#: Where answers would show: an address of the scanner that is not the tunnel's business.
SCANNER6, SPOOFED = "2001:db8:5ca:0::66", "2a02:2c40:0:80::80:15"

TUNNELS = {
    "domain": (DOMAIN, "10.0.0.1/8"),
    "6to4": ("", "192.88.17.1/24"),
    "border relay": (f"{DOMAIN} --border-relay", "10.0.0.1/8"),
    "relay and default route": (f"{DOMAIN} --relay 10.0.0.9 --default-route", "10.0.0.1/8"),
    "point to point": ("--remote 192.0.2.1 --address 2001:db8:1::2/64 --default-route", "192.88.17.1/24"),
}


@pytest.fixture(scope="module", params=TUNNELS.values(), ids=TUNNELS.keys())
def host(request, binary):
    options, address = request.param
    with Lab() as lab:
        yield ProbedHost(lab, options, address)


class ProbedHost:
    def __init__(self, lab: Lab, options: str, address: str):
        self.local = address.split("/")[0]
        #: Point to point the kernel shows tund the remote's packets only.
        self.is_deaf = "--remote" in options
        self.wired = HostOnAWire(lab, options, address=address)
        host, far = self.wired.host, self.wired.far
        host.sysctl(ipv6__conf__all__forwarding=1)
        lab.veth(host, "pod0", far, "pod0")
        far.sysctl(ipv6__conf__pod0__disable_ipv6=1)
        # What the host would send outside goes to the pod's wire.
        host.ip("link set pod0 arp off", "addr add 2001:db8:77::1/64 dev pod0 nodad",
                "route replace default via fe80::1 dev pod0 metric 1 onlink" if "--default-route" not in options
                else "route add 2001:db8:5ca::/48 dev pod0")
        self.pod = lab.packet_socket(far, "pod0")

    def probe(self, packet) -> tuple[int, list[bytes], list[bytes]]:
        """One probe: by how much the drop counters rose, and what left the host by either wire."""
        self.wired.wire.drain(), self.pod.drain()
        before = self.wired.tund.counters()
        self.wired.wire.send(in_ipv4(packet, SCANNER, self.local))
        after = self.wired.tund.counters_once(lambda now: self.is_deaf or dropped(now) > dropped(before))
        if self.is_deaf:
            time.sleep(0.2)
        to_pod = [packet for packet in self.pod.drain() if packet[24] != 0xFF]  # without the host's own multicast
        return dropped(after) - dropped(before), self.wired.wire.drain(), to_pod


def dropped(counters) -> int:
    return sum(count for name, count in counters.items() if name.startswith("downlink.") and name not in (
        "downlink.packets", "downlink.bytes"))


PROBES = {
    "standard": lambda local: inner(f"::ffff:{local}", SCANNER6, ICMPv6EchoReply(data=b"standard")),
    "subnet spoof": lambda local: inner(f"::ffff:{local[:-1]}0", SCANNER6, ICMPv6EchoReply(data=b"subnet")),
    "spoof": lambda local: inner(SPOOFED, SCANNER6, ICMPv6EchoReply(data=b"spoof")),
    "ping": lambda local: inner(SCANNER6, f"::ffff:{local}", ICMPv6EchoRequest(data=b"ping")),
    "ping, global": lambda local: inner(SCANNER6, "2001:db8:77::1", ICMPv6EchoRequest(data=b"ping")),
    "TTL expired": lambda local: inner(SCANNER6, SPOOFED, ICMPv6EchoRequest(data=b"ttl"), hlim=0),
    "TTL expires": lambda local: inner(SCANNER6, SPOOFED, ICMPv6EchoRequest(data=b"ttl"), hlim=1),
}


@pytest.mark.parametrize("name", PROBES)
def test_closed(host, name):
    """Each is dropped, under a counter where tund sees it, and nothing leaves the host: no forwarded packet, no answer, no error."""
    rise, to_wire, to_pod = host.probe(PROBES[name](host.local))
    assert rise == (0 if host.is_deaf else 1)
    assert not to_wire and not to_pod, f"{show(to_wire)}\n{show(to_pod)}"
