"""TCP MSS clamping: what a SYN announces is lowered on its way through the tunnel, whichever way it goes.

    far end ------ eth0 host, tund0 (MTU 1480)
                   sockets of the host above it
"""

import random
import socket

import pytest

import checksum
from packets import DOMAIN, HERE, IP, TCP, THERE, IPv6, IPv6ExtHdrDestOpt, in_ipv4, inner
from wire import HostOnAWire

LIMIT = {"off": 65535, "auto": 1420, "1000": 1000}


@pytest.fixture(scope="module", params=LIMIT)
def clamped(shared_lab, request):
    """(host, the limit)"""
    return HostOnAWire(shared_lab, f"{DOMAIN} --mss-clamp {request.param}"), LIMIT[request.param]


SYNS = {
    "syn": (TCP(flags="S", options=[("MSS", 8940)]), 8940),
    "syn-ack": (TCP(flags="SA", options=[("MSS", 8940), ("SAckOK", b""), ("WScale", 7)]), 8940),
    "odd": (TCP(flags="S", options=[("WScale", 7), ("MSS", 8940), ("EOL", None)]), 8940),
    "data": (TCP(flags="S", options=[("MSS", 8940)]) / b"early", 8940),
    "small": (TCP(flags="S", options=[("MSS", 800)]), 800),
    "none": (TCP(flags="S", options=[("SAckOK", b"")]), None),
    "ack": (TCP(flags="A", options=[("MSS", 8940)]), None),
}


def expected(segment: TCP, announced: int | None, limit: int) -> TCP:
    """The segment that must come out, its checksum still to be computed."""
    segment = segment.copy()
    segment.options = [(kind, min(announced, limit) if kind == "MSS" and announced else value)
                       for kind, value in segment.options]
    return segment


@pytest.mark.parametrize("extension", [None, IPv6ExtHdrDestOpt()], ids=["bare", "behind options"])
@pytest.mark.parametrize("segment, announced", SYNS.values(), ids=SYNS)
def test_from_the_host_and_from_the_wire(clamped, segment, announced, extension):
    """scapy computes the checksum of what must come out from scratch."""
    host, limit = clamped
    for source, destination in ((HERE, THERE), (THERE, HERE)):
        def packet(of: TCP) -> bytes:
            return bytes(IPv6(bytes(inner(source, destination, extension / of if extension else of))))

        sent, wanted = packet(segment), packet(expected(segment, announced, limit))
        if source == HERE:
            seen = [bytes(IP(octets).payload) for octets in host.observe(from_host=[sent]).to_wire]
            assert wanted in seen
        else:
            assert host.observe(from_wire=[in_ipv4(sent)]).to_host == [wanted]


@pytest.mark.parametrize("finish", [bytes, checksum.unfinished], ids=["finished", "unfinished"])
def test_a_handshake(clamped, finish):
    """The host opens a connection: the far end sees a SYN with the limit. It answers with more than the tunnel takes, and the
    host's stack settles for the limit."""
    host, limit = clamped
    client = host.host.socket(socket.AF_INET6, socket.SOCK_STREAM)
    client.setblocking(False)
    with client:
        host.wire.drain()
        client.connect_ex((THERE, 9))
        _, to_wire = host.settle()
        # Beside it, what remains of an earlier connection may be sent again.
        segments = [IPv6(bytes(IP(packet).payload)) for packet in to_wire]
        syn = next(segment for segment in segments if TCP in segment and segment[TCP].flags == "S")
        assert dict(syn[TCP].options)["MSS"] == min(1420, limit) and checksum.is_right(bytes(syn))
        answer = TCP(sport=9, dport=syn.sport, seq=random.getrandbits(32), ack=syn.seq + 1, flags="SA",
                     options=[("MSS", 1430)])
        host.wire.send(in_ipv4(finish(bytes(inner(payload=answer)))))
        host.settle()
        client.getpeername()
        # What it takes of its own MTU is less than what the far end announced; TCP_MAXSEG says what it will send.
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == min(1420, limit)
