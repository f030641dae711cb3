"""Several workers: every packet once, and a flow in its order, whoever carries it.

    far end ------ eth0 host, tund0 (4 queues) --- packet socket
    24 flows of numbered packets, from either end
"""

import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

import traffic
from packets import DOMAIN, HERE, IP, THERE, UDP, IPv6, Raw, fragment, in_ipv4, inner
from wire import HostOnAWire

FLOWS, PACKETS = 24, 100


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda count: f"{count} workers")
def host(shared_lab, request):
    # Unmerged: a packet socket on the TUN would see super-packets.
    made = HostOnAWire(shared_lab, f"{DOMAIN} --workers {request.param} --no-gro")
    made.host.run(["nft", "add chain ip6 quiet input { type filter hook input priority 0; };"
                          " add rule ip6 quiet input udp dport 9 drop"])  # fmt: skip
    return made


def flow_packet(source: str, destination: str, flow: int, number: int) -> bytes:
    return bytes(inner(source, destination, UDP(sport=20000 + flow, dport=9) / Raw(number.to_bytes(4, "big") * 25)))


def assert_each_once(arrived: list[bytes], sent: list[list[bytes]]):
    """`sent`: the packets of each flow in their order."""
    flows = defaultdict(list)
    for packet in arrived:
        flows[IPv6(packet)[UDP].sport - 20000].append(packet)
    for flow, packets in enumerate(sent):
        assert sorted(flows[flow]) == sorted(packets), f"flow {flow}: lost or doubled"
        assert flows[flow] == packets, f"flow {flow}: out of order"


def carry(send, receive, packets: list[list[bytes]]) -> list[bytes]:
    """The flows side by side, in steps that no queue is too short for. At the end it waits in vain for doubles."""
    arrived = []
    for start in range(0, PACKETS, 5):
        step = [packet for number in range(start, start + 5) for packet in (flow[number] for flow in packets)]
        send(step)
        arrived += receive(len(step), 5)
    return arrived + receive(1, 0.3)


def test_to_the_host(host):
    packets = [[flow_packet(THERE, HERE, flow, number) for number in range(PACKETS)] for flow in range(FLOWS)]
    host.wire.drain(), host.tun.drain()
    assert_each_once(carry(lambda step: host.wire.send(*map(in_ipv4, step)), host.tun.receive, packets), packets)


def test_to_the_wire(host):
    packets = [[flow_packet(HERE, THERE, flow, number) for number in range(PACKETS)] for flow in range(FLOWS)]
    host.wire.drain(), host.tun.drain()
    arrived = carry(lambda step: host.tun.send(*step), host.wire.receive, packets)
    assert_each_once([bytes(IP(packet).payload) for packet in arrived], packets)


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
    packets = [flow_packet(THERE, HERE, flow, 0) for flow in range(64)]
    host.tun.drain()
    before = host.tund.counters()
    host.wire.send(*map(in_ipv4, packets))
    assert len(host.tun.receive(64)) == 64
    host.settle()
    assert host.tund.counters()["downlink.packets"] == before["downlink.packets"] + 64 + 1


@pytest.mark.parametrize("workers", [8, 16, 32])
def test_as_many_workers_as_a_large_machine_has(lab, workers):
    host = HostOnAWire(lab, f"{DOMAIN} --workers {workers}")
    for _ in range(10):
        host.settle()


def test_sixteen_connections_between_two_hosts(lab):
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    lab.tund(a, f"{DOMAIN} --workers 4"), lab.tund(b, f"{DOMAIN} --workers 4")
    with ThreadPoolExecutor(16) as pool:
        pairs = [(a, b, THERE), (b, a, HERE)] * 8
        streams = list(pool.map(lambda pair: traffic.tcp(*pair, size=1 << 18), pairs))
        datagrams = list(pool.map(lambda pair: traffic.udp(*pair, count=60), pairs))
    assert all(streams) and all(datagrams)
