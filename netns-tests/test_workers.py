"""Several workers: every packet once, and a flow in its order, whoever carries it.

    far end ------ eth0 host, tund0 (4 queues) --- packet socket
    24 flows of numbered packets, from either end
"""

import socket
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

import traffic
from packets import DOMAIN, HERE, THERE, UDP, Raw, fragment, in_ipv4, inner
from wire import HostOnAWire

FLOWS, PACKETS = 24, 100
SO_RCVBUFFORCE = 33


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda count: f"{count} workers")
def host(shared_lab, request):
    made = HostOnAWire(shared_lab, f"{DOMAIN} --workers {request.param}")
    made.host.run(["nft", "add chain ip6 quiet input { type filter hook input priority 0; };"
                          " add rule ip6 quiet input udp dport 9 drop"])  # fmt: skip
    return made


def payload(flow: int, number: int) -> bytes:
    return flow.to_bytes(2, "big") + number.to_bytes(2, "big") * 50


def assert_each_once_in_order(arrived: list[bytes]):
    flows = defaultdict(list)
    for octets in arrived:
        flows[int.from_bytes(octets[:2], "big")].append(octets)
    for flow in range(FLOWS):
        sent = [payload(flow, number) for number in range(PACKETS)]
        assert sorted(flows[flow]) == sent, f"flow {flow}: lost, doubled or damaged"
        assert flows[flow] == sent, f"flow {flow}: out of order"


def steps():
    """(flow, number) of all packets, the flows side by side, in steps that no queue is too short for."""
    for start in range(0, PACKETS, 5):
        yield [(flow, number) for number in range(start, start + 5) for flow in range(FLOWS)]


def udp(source: str, destination: str, flow: int, number: int):
    return inner(source, destination, UDP(sport=20000 + flow, dport=4242) / Raw(payload(flow, number)))


def test_to_the_host(host):
    """Read from a socket: tund may hand datagrams of a flow to the kernel in one piece, which that takes apart again."""
    receiver = host.host.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    receiver.bind((HERE, 4242))
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    arrived = []
    with receiver:
        for step in steps():
            host.wire.send(*[in_ipv4(udp(THERE, HERE, flow, number)) for flow, number in step])
            arrived += [receiver.recv(2048) for _ in step]
        host.settle()
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(2048)
    assert_each_once_in_order(arrived)


def test_to_the_wire(host):
    """From 24 sockets of the host."""
    senders = [host.host.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(FLOWS)]
    for sender in senders:
        sender.connect((THERE, 4242))
    host.wire.drain()
    arrived = []
    for step in steps():
        for flow, number in step:
            senders[flow].send(payload(flow, number))
        arrived += host.wire.receive(len(step))
    arrived += host.wire.receive(1, timeout=0.3)
    for sender in senders:
        sender.close()
    assert_each_once_in_order([packet[20 + 40 + 8 :] for packet in arrived])


def verdicts(counters) -> int:
    """Packets from the wire that were handed on or dropped for a reason."""
    return sum(count for name, count in counters.items() if name.startswith("downlink") and name != "downlink.bytes")


def assert_one_verdict_each(host, packets):
    """Every packet is for exactly one worker: none of them is counted twice, and none gets lost between their filters."""
    before = verdicts(host.tund.counters())
    for start in range(0, len(packets), 50):
        step = packets[start : start + 50]
        host.wire.send(*step)
        end = time.monotonic() + 5
        while (counted := verdicts(host.tund.counters()) - before) < start + len(step):
            assert time.monotonic() < end, f"{counted} of {start + len(step)}"
    time.sleep(0.2)
    assert verdicts(host.tund.counters()) - before == len(packets)


def test_short_packets_have_one_verdict_each(host):
    """From nothing behind the IPv4 header to a few bytes of what follows the IPv6 header."""
    whole = bytes(inner(payload=UDP(sport=1, dport=9) / Raw(bytes(20))))
    assert_one_verdict_each(host, [in_ipv4(whole[:length]) for length in range(len(whole) + 1)] * 3)


@pytest.mark.parametrize("next_header", [0, 4, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 135, 255])
def test_every_next_header_has_one_verdict_each(host, next_header):
    """With zero to twelve bytes behind the IPv6 header, which is where the ports would be."""
    packets = [in_ipv4(inner(payload=bytes([59, 0, 0, 0]) * 3, nh=next_header, fl=label)) for label in range(10)]
    bodies = [in_ipv4(inner(payload=bytes([59]) * length, nh=next_header)) for length in range(13)]
    assert_one_verdict_each(host, packets + bodies)


def test_ipv4_fragments_have_one_verdict_each(host):
    """They are put together before any worker sees them."""
    flows = [in_ipv4(inner(payload=UDP(sport=flow, dport=9) / Raw(bytes(900))), id=700 + flow) for flow in range(20)]
    before = verdicts(host.tund.counters())
    for flow in flows:
        host.wire.send(*fragment(flow, fragsize=400))
    host.settle(tries=5)
    time.sleep(0.2)
    assert verdicts(host.tund.counters()) - before == len(flows) + 1


def test_counters_are_those_of_all_workers(host):
    """64 flows of one packet each, in whatever pieces they were handed on."""
    assert_one_verdict_each(host, [in_ipv4(inner(payload=UDP(sport=flow, dport=9))) for flow in range(1, 65)])


@pytest.mark.parametrize("workers", [8, 16, 32])
def test_as_many_workers_as_a_large_machine_has(lab, workers):
    host = HostOnAWire(lab, f"{DOMAIN} --workers {workers}")
    for _ in range(10):
        host.settle()


def test_sixteen_connections_between_two_hosts(lab):
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    lab.tund(a, f"{DOMAIN} --workers 4"), lab.tund(b, f"{DOMAIN} --workers 2")
    with ThreadPoolExecutor(16) as pool:
        pairs = [(a, b, THERE), (b, a, HERE)] * 8
        streams = list(pool.map(lambda pair: traffic.tcp(*pair, size=1 << 18), pairs))
        datagrams = list(pool.map(lambda pair: traffic.udp(*pair, count=60), pairs))
    assert all(streams) and all(datagrams)
