"""What tund merges for the TUN must come apart again as it was: by the host's stack, for the host's sockets.

    far end ------ eth0 host, tund stopped while packets pile up, tund0 --- sockets of the host

Merged packets share one header and one promise that the checksum is right. So nothing may be merged that has another header,
and above all nothing whose checksum is wrong.
"""

import contextlib
import random
import signal
import socket
import struct

import pytest

import checksum
from packets import DOMAIN, HERE, THERE, TCP, UDP, IPv6, Raw, in_ipv4, inner
from wire import HostOnAWire

MTU = 1480


@pytest.fixture(scope="module", params=["", "--no-gro"], ids=["--gro", "--no-gro"])
def host(shared_lab, request):
    return HostOnAWire(shared_lab, f"{DOMAIN} {request.param}")


@contextlib.contextmanager
def piling_up(host):
    """All that is sent meanwhile is there for tund at one time."""
    host.tund.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        host.tund.signal(signal.SIGCONT)


@pytest.fixture
def receiver(host):
    opened = host.host.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    opened.bind((HERE, 4242))
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    with opened:
        yield opened


def datagram(payload: bytes, **fields) -> IPv6:
    return inner(payload=UDP(sport=53, dport=4242) / Raw(payload), **fields)


def received(host, receiver) -> list[tuple[bytes, int, int]]:
    """(payload, traffic class, hop limit) of the datagrams that are there, once all has been dealt with."""
    host.settle()
    receiver.setblocking(False)
    arrived = []
    with contextlib.suppress(BlockingIOError):
        while True:
            payload, ancillary, *_ = receiver.recvmsg(1 << 16, 256)
            values = {kind: struct.unpack("i", data)[0] for _, kind, data in ancillary}
            arrived.append((payload, values[socket.IPV6_TCLASS], values[socket.IPV6_HOPLIMIT]))
    return arrived


def test_datagrams_of_one_size(host, receiver):
    sent = [bytes([number]) * 700 for number in range(60)]
    host.tun.drain()
    with piling_up(host):
        host.wire.send(*[in_ipv4(datagram(payload)) for payload in sent])
    assert [payload for payload, *_ in received(host, receiver)] == sent


def test_datagrams_of_many_sizes(host, receiver):
    """Only the last one of a merged packet may be shorter, and none longer; 0 bytes is a datagram as well."""
    sizes = [700, 700, 700, 300, 700, 700, 800, 800, 1, 1, 0, 0, 1, 1400, 1400, 1399, 1400, 13, 12, 12, 11]
    sent = [bytes([number]) * size for number, size in enumerate(sizes * 3)]
    with piling_up(host):
        host.wire.send(*[in_ipv4(datagram(payload)) for payload in sent])
    assert [payload for payload, *_ in received(host, receiver)] == sent


def test_each_keeps_its_traffic_class_and_hop_limit(host, receiver):
    """ECN above all: congestion that one packet met must not get lost among others, nor be blamed on them."""
    chance = random.Random(41)
    fields = [(chance.choice([0, 0xB8]) | 2, chance.choice([63, 64, 64, 64]), chance.choice([2, 2, 3, 1])) for _ in range(80)]
    packets = [
        in_ipv4(datagram(bytes([number]) * 400, tc=traffic_class, hlim=hop_limit), tos=outer_ecn)
        for number, (traffic_class, hop_limit, outer_ecn) in enumerate(fields)
    ]
    with piling_up(host):
        host.wire.send(*packets)
    # Inner ECT(0): outer CE and ECT(1) go in, outer ECT(0) changes nothing.
    expected = [(bytes([number]) * 400, traffic_class & 0xFC | outer_ecn, hop_limit)
                for number, (traffic_class, hop_limit, outer_ecn) in enumerate(fields)]  # fmt: skip
    assert received(host, receiver) == expected


def broken(kind: str, payload: bytes) -> bytes:
    packet = bytes(datagram(payload))
    match kind:
        case "wrong checksum":
            return packet[:46] + bytes([packet[46] ^ 0x10]) + packet[47:]
        case "no checksum":
            return packet[:46] + bytes(2) + packet[48:]
        case "wrong byte in the payload":
            return packet[:-3] + bytes([packet[-3] ^ 1]) + packet[-2:]
        case "UDP length beyond the packet":
            return packet[:44] + struct.pack("!H", len(packet)) + packet[46:]
        case "UDP length of less than its header":
            return packet[:44] + struct.pack("!H", 7) + packet[46:]


BROKEN = ["wrong checksum", "no checksum", "wrong byte in the payload", "UDP length beyond the packet",
          "UDP length of less than its header"]  # fmt: skip


@pytest.mark.parametrize("finish", [bytes, checksum.unfinished], ids=["finished", "unfinished"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_datagram_is_not_mended_by_its_neighbours(host, receiver, kind, finish):
    """In the first place, in the middle and at the end of what would be merged."""
    packets, good = [], []
    for number in range(30):
        payload = bytes([number]) * 500
        if number in (0, 7, 8, 15, 29):
            packets.append(broken(kind, payload))
        else:
            packets.append(finish(bytes(datagram(payload))))
            good.append(payload)
    with piling_up(host):
        host.wire.send(*map(in_ipv4, packets))
    assert [payload for payload, *_ in received(host, receiver)] == good


def test_a_udp_length_shorter_than_the_packet(host, receiver):
    """What is behind belongs to no datagram, and not to the next one of the flow either."""

    def padded(payload: bytes) -> bytes:
        whole = bytes(datagram(payload))
        return whole[:4] + struct.pack("!H", len(whole) - 40 + 20) + whole[6:] + bytes(20)

    sent = [bytes([number]) * 500 for number in range(20)]
    packets = [padded(payload) if number % 3 == 0 else datagram(payload) for number, payload in enumerate(sent)]
    alone = [payload for number, payload in enumerate(sent) if number % 3 == 0]
    # What the host's stack makes of such a packet when it comes alone is what must come of it in company.
    for packet, payload in zip(packets[::3], alone):
        host.wire.send(in_ipv4(packet))
        taken = [octets for octets, *_ in received(host, receiver)]
        assert taken in ([], [payload])
    expected = [payload for number, payload in enumerate(sent) if number % 3 or taken]
    with piling_up(host):
        host.wire.send(*map(in_ipv4, packets))
    assert [payload for payload, *_ in received(host, receiver)] == expected


class Client:
    """The smallest TCP client that can send what it likes: it speaks from the wire, to a socket of the host."""

    def __init__(self, host):
        self._host = host
        listener = host.host.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.bind((HERE, 0))
        listener.listen()
        self._ports = {"sport": random.randrange(1024, 60000), "dport": listener.getsockname()[1]}
        self._start = random.randrange(1 << 32)
        host.wire.drain()
        host.wire.send(in_ipv4(self._segment(TCP(seq=self._start, flags="S", **self._ports))))
        _, answer = host.wire.receive_until(self._is_syn_ack)
        self._acknowledge = IPv6(answer[20:])[TCP].seq + 1 & 0xFFFFFFFF
        with listener:
            host.wire.send(in_ipv4(self.data(0, b"", flags="A")))
            self.server, _ = listener.accept()
        self.server.settimeout(5)

    def _is_syn_ack(self, packet: bytes) -> bool:
        """To this client, not to one that was here before."""
        if packet[9] != 41 or packet[26] != 6:
            return False
        header = IPv6(packet[20:])[TCP]
        return header.dport == self._ports["sport"] and header.flags == "SA"

    @staticmethod
    def _segment(header) -> bytes:
        return bytes(inner(payload=header))

    def data(self, offset: int, payload: bytes, *, flags: str = "A", **fields) -> bytes:
        """The segment with `payload` at `offset` of the stream."""
        header = TCP(seq=self._start + 1 + offset & 0xFFFFFFFF, ack=self._acknowledge, flags=flags, window=65535,
                     **self._ports, **fields)  # fmt: skip
        return self._segment(header / Raw(payload))

    def read(self, size: int) -> bytes:
        whole = b""
        while len(whole) < size and (part := self.server.recv(size - len(whole))):
            whole += part
        return whole


@pytest.fixture
def client(host):
    made = Client(host)
    with made.server:
        yield made


SEGMENT = 1000


def stream(count: int) -> list[bytes]:
    return [bytes([number]) * SEGMENT for number in range(count)]


@pytest.mark.parametrize("finish", [bytes, checksum.unfinished], ids=["finished", "unfinished"])
def test_segments(host, client, finish):
    parts = stream(25)
    with piling_up(host):
        host.wire.send(*[in_ipv4(finish(client.data(number * SEGMENT, part))) for number, part in enumerate(parts)])
    assert client.read(25 * SEGMENT) == b"".join(parts)


@pytest.mark.parametrize("finish", [bytes, checksum.unfinished], ids=["finished", "unfinished"])
@pytest.mark.parametrize("position", [0, 1, 9, 19])
def test_a_broken_segment_is_not_mended_by_its_neighbours(host, client, position, finish):
    """The host waits for the right one, and reads every byte as it was sent."""
    parts = stream(20)
    segments = [finish(client.data(number * SEGMENT, part)) for number, part in enumerate(parts)]
    good = bytes(client.data(position * SEGMENT, parts[position]))
    segments[position] = good[:-5] + b"\xee" + good[-4:]
    with piling_up(host):
        host.wire.send(*map(in_ipv4, segments))
    host.settle()
    client.server.setblocking(False)
    before = b""
    with contextlib.suppress(BlockingIOError):
        while part := client.server.recv(1 << 16):
            before += part
    assert before == b"".join(parts[:position])
    client.server.settimeout(5)
    host.wire.send(in_ipv4(good))
    assert client.read((20 - position) * SEGMENT) == b"".join(parts[position:])


def test_segments_out_of_order_doubled_and_with_other_flags(host, client):
    """PSH, options that differ, a gap and its filling, the same once more, and FIN with the last one."""
    parts = stream(24)
    order = [0, 1, 2, 4, 3, 5, 5, 6, 9, 10, 11, 7, 8, 12, 13, 1, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]
    timestamps = {13: [("Timestamp", (1, 0))], 16: [("NOP", None), ("NOP", None)]}
    flags = {2: "PA", 6: "PA", 18: "PA", 23: "FA"}
    with piling_up(host):
        host.wire.send(*[
            in_ipv4(client.data(number * SEGMENT, parts[number], flags=flags.get(number, "A"),
                                options=timestamps.get(number, [])))
            for number in order
        ])  # fmt: skip
    assert client.read(25 * SEGMENT) == b"".join(parts), "and then the end of the stream"


def test_it_does_merge(host):
    """With --gro, else this file would test nothing; without, not."""
    merges = "--no-gro" not in host.tund.argv
    packets = [in_ipv4(inner(payload=UDP(sport=53, dport=4243) / Raw(bytes([number]) * 700))) for number in range(20)]
    host.host.run(["nft", "add chain ip6 quiet input { type filter hook input priority 0; };"
                          " add rule ip6 quiet input udp dport 4243 drop"])  # fmt: skip
    host.tun.drain()
    with piling_up(host):
        host.wire.send(*packets)
    to_host, _ = host.settle()
    assert (max(map(len, to_host)) > MTU) == merges
    assert sum(len(packet) - 48 for packet in to_host) == 20 * 700
