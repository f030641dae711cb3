"""Checksums that a stack leaves to its device: tund is the last one to finish them, and the first to meet unfinished ones.

    far end ------ eth0 host, tund0
                   sockets of the host above it

On the wire every inner checksum is right. From the wire, a neighbour on the same machine may deliver packets whose field holds
only the pseudo-header's sum: that is not an error. A wrong checksum stays wrong, for the host to find.
"""

import random
import socket
import struct

import pytest

import checksum
from packets import DOMAIN, HERE, IP, TCP, THERE, UDP, Raw, in_ipv4, inner
from wire import HostOnAWire, show


@pytest.fixture(scope="module", params=["offload", "no offload"])
def host(shared_lab, request):
    made = HostOnAWire(shared_lab, DOMAIN)
    if request.param == "no offload":
        made.host.run("ethtool -K tund0 tx off", check=False)
    return made


def sent_by(host, send) -> list[bytes]:
    """Inner packets on the wire after send()."""
    host.wire.drain()
    send()
    _, to_wire = host.settle()
    return [bytes(IP(packet).payload) for packet in to_wire]


def test_udp_of_a_process(host):
    sender = host.host.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sender.connect((THERE, 9))
    sizes = [0, 1, 2, 3, 100, 1001, 1431, 1432, 3000, 9001]
    with sender:
        packets = sent_by(host, lambda: [sender.send(random.randbytes(size)) for size in sizes])
    whole = [packet for packet in packets if packet[6] == 17]
    assert len(whole) == 8 and len(packets) > 10, "the two longest go as IPv6 fragments"
    assert all(map(checksum.is_right, whole)), show(whole)


def test_tcp_and_icmpv6_of_a_process(host):
    client = host.host.socket(socket.AF_INET6, socket.SOCK_STREAM)
    client.setblocking(False)
    with client:
        [syn, *_] = sent_by(host, lambda: client.connect_ex((THERE, 9)))
    assert syn[6] == 6 and checksum.is_right(syn), syn.hex()
    echoes = sent_by(host, lambda: host.host.ping(THERE, count=2, options="-W 1"))
    assert len(echoes) == 2 and all(map(checksum.is_right, echoes)), show(echoes)


def test_a_udp_checksum_that_comes_out_as_zero_is_sent_as_ffff(host):
    """In IPv6 a checksum of 0 means none, which nobody accepts (RFC 8200, 8.1)."""
    sender = host.host.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sender.bind((HERE, 4141))
    sender.connect((THERE, 9))
    # The two bytes of payload that make up what is missing.
    bare = bytes(inner(HERE, THERE, UDP(sport=4141, dport=9, chksum=0) / Raw(bytes(2))))
    rest = 0xFFFF - checksum.folded(checksum.pseudo_header(bare) + bare[40:])
    with sender:
        [packet] = sent_by(host, lambda: sender.send(struct.pack("!H", rest)))
    assert packet[46:48] == b"\xff\xff" and checksum.is_right(packet), packet.hex()


def udp(payload: bytes, **fields) -> bytes:
    return bytes(inner(payload=UDP(sport=53, dport=4242, **fields) / Raw(payload)))


@pytest.fixture
def receiver(host):
    opened = host.host.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    opened.bind((HERE, 4242))
    with opened:
        yield opened


@pytest.mark.parametrize("size", [0, 1, 2, 15, 16, 17, 999, 1000, 1432])
@pytest.mark.parametrize("finish", [bytes, checksum.unfinished], ids=["finished", "unfinished"])
def test_a_datagram_arrives(host, receiver, finish, size):
    """Whichever of the two it is, a process of the host gets it."""
    payload = random.randbytes(size)
    host.wire.send(in_ipv4(finish(udp(payload))))
    assert receiver.recv(2048) == payload


@pytest.mark.parametrize("finish", [bytes, checksum.unfinished], ids=["finished", "unfinished"])
def test_a_connection_is_answered(host, finish):
    """A SYN from the wire: the host's stack answers it only if it believes the checksum."""
    listener = host.host.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.bind((HERE, 0))
    listener.listen()
    port = listener.getsockname()[1]
    with listener:
        syn = bytes(inner(payload=TCP(sport=random.randrange(1024, 60000), dport=port, flags="S")))
        answers = [packet for packet in sent_by(host, lambda: host.wire.send(in_ipv4(finish(syn)))) if packet[6] == 6]
    assert len(answers) == 1 and answers[0][53] == 0x12, "SYN and ACK"
    assert checksum.is_right(answers[0])


@pytest.mark.parametrize("wrong", [
    udp(b"wrong by one", chksum=(checksum.folded(udp(b"wrong by one")[46:48]) ^ 1)),
    udp(b"no checksum", chksum=0),
    checksum.unfinished(udp(b"nearly unfinished"))[:47] + b"\x55" + checksum.unfinished(udp(b"nearly unfinished"))[48:],
], ids=["wrong", "zero", "nearly unfinished"])  # fmt: skip
def test_a_wrong_checksum_is_not_mended(host, receiver, wrong):
    """tund does not judge it; it hands the packet on as it is, and the host's stack drops it."""
    seen = host.observe(from_wire=[in_ipv4(wrong)])
    assert seen.to_host == [wrong]
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(2048)
