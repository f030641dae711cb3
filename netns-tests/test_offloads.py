"""Super-packets: the TUN may hand over up to 64 KiB at once, and a device with GRO delivers as much. Data and segments stay
right, whatever is switched on or off.

    a 10.0.0.1 -- eth0 --- switch (looks at every packet) --- eth0 -- b 10.0.0.2 --- pod fd12:3456:7800:2::100
      tund0                                                            tund0, forwarding
"""

import contextlib
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

import checksum
import traffic
from lab import Lab
from packets import DOMAIN, IP, IPv6, TCP

A, B, POD = "fd12:3456:7800:1::1", "fd12:3456:7800:2::1", "fd12:3456:7800:2::100"
UDP_SEGMENT, UDP_GRO = 103, 104

#: What `ethtool -K` is told about the underlay's interfaces, and about the TUNs.
SETTINGS = {
    "as it comes": ([], []),
    "GRO on the underlay": (["gro on"], []),
    "no segmentation offload": (["gso off", "tso off"], ["gso off", "tso off"]),
    "no checksum offload": (["tx off", "rx off"], ["tx off"]),
    "GRO on the underlay, nothing on the TUN": (["gro on"], ["tx off", "gso off", "gro off"]),
}


def merge(host, switch, port: str):
    """Makes GRO as busy on a veth as it is on a network card: a veth leaves packets alone that come from one with TSO, and
    merges only what arrives within one poll, so that one is drawn out to 0.3 ms."""
    host.run("ethtool -K eth0 gro on")
    host.run(["sh", "-c", "cd /sys/class/net/eth0 && echo 300000 >gro_flush_timeout && echo 100 >napi_defer_hard_irqs"])
    switch.run(f"ethtool -K {port} tso off")


def pod_behind(lab, b):
    pod = lab.namespace("pod")
    lab.veth(b, "pod", pod, "eth0")
    b.sysctl(ipv6__conf__all__forwarding=1)
    hardware = pod.run("cat /sys/class/net/eth0/address").stdout.strip()
    b.ip("addr add fe80::1/64 dev pod nodad", f"route add {POD}/128 dev pod", f"neigh add {POD} lladdr {hardware} dev pod")
    pod.ip(f"addr add {POD}/128 dev eth0 nodad", "route add default via fe80::1 dev eth0")
    return pod


@pytest.fixture(scope="module", params=SETTINGS)
def site(binary, request):
    """(a, b, pod, the switch, whether the underlay merges)"""
    underlay, overlay = SETTINGS[request.param]
    with Lab() as lab:
        a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
        switch = lab.namespaces[0]
        for host in (a, b):
            host.sysctl(ipv4__tcp_ecn=1)
            lab.tund(host, DOMAIN)
            for interface, settings in (("eth0", underlay), ("tund0", overlay)):
                for setting in settings:
                    host.run(f"ethtool -K {interface} {setting}")
        if merges := "gro on" in underlay:
            merge(a, switch, "to-a")
            merge(b, switch, "to-b")
        yield a, b, pod_behind(lab, b), switch, merges


@pytest.fixture
def tap(site, lab):
    """Sees what a sends."""
    return lab.packet_socket(site[3], "to-a")


@pytest.fixture(params=["a to b", "b to a", "a to pod", "pod to a"])
def direction(site, request):
    """(sender, receiver, its address)"""
    a, b, pod, *_ = site
    return {"a to b": (a, b, B), "b to a": (b, a, A), "a to pod": (a, pod, POD), "pod to a": (pod, a, A)}[request.param]


def test_a_stream_arrives_unchanged(direction):
    assert traffic.tcp(*direction, size=8 << 20)


def test_datagrams_arrive_each_as_it_was(direction):
    assert traffic.udp(*direction)


def test_the_underlay_merges_where_it_should(site, lab):
    """Else this file would test less than it says."""
    a, b, _, _, merges = site
    arriving = lab.packet_socket(b, "eth0")
    assert traffic.tcp(a, b, B, size=4 << 20)
    assert (max(map(len, arriving.drain())) > 3000) == merges


def test_every_segment_on_the_wire_is_right(site, tap):
    """Checksums, lengths, no gap in the sequence numbers, and with ECN agreed on (tcp_ecn) ECT(0) inside and outside."""
    a, b, *_ = site
    size = 1 << 20
    assert traffic.tcp(a, b, B, size=size)
    packets = [packet for packet in tap.drain() if packet[9] == 41]
    covered = bytearray(size)
    start = None
    for packet in packets:
        inside = packet[20:]
        assert len(packet) <= 1500 and IP(packet).flags == "DF"
        assert int.from_bytes(inside[4:6], "big") == len(inside) - 40
        assert checksum.is_right(inside), inside[:80].hex()
        segment = IPv6(inside)
        if TCP not in segment:
            continue
        if start is None:
            assert segment[TCP].flags & 0x02, "the first one is the SYN"
            start = segment[TCP].seq + 1
        if data := len(segment[TCP].payload):
            offset = (segment[TCP].seq - start) % (1 << 32)
            if not any(covered[offset : offset + data]):  # TCP sends nothing a second time as ECT (RFC 3168, 6.1.5)
                assert segment.tc & 3 == packet[1] & 3 == 2, "ECT(0)"
            covered[offset : offset + data] = b"\x01" * data
    assert covered == b"\x01" * size


@pytest.mark.parametrize("to", ["b", "pod"])
def test_segments_of_a_datagram_socket(site, tap, to):
    """UDP_SEGMENT: one send of many datagrams, which arrive as many."""
    a, b, pod, *_ = site
    receiver = (b if to == "b" else pod).socket(socket.AF_INET6, socket.SOCK_DGRAM)
    receiver.bind((B if to == "b" else POD, 0))
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sender = a.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
    sender.connect(receiver.getsockname()[:2])
    with receiver, sender:
        for number in range(5):
            parts = [bytes([number, part]) * 600 for part in range(40)] + [bytes([number, 40]) * 100]
            sender.send(b"".join(parts))
            assert sorted(receiver.recv(2048) for _ in parts) == sorted(parts)
    datagrams = [packet[20:] for packet in tap.drain() if packet[9] == 41 and packet[26] == 17]
    assert len(datagrams) == 5 * 41 and all(map(checksum.is_right, datagrams))


def test_many_streams_at_once(site):
    a, b, pod, *_ = site
    with ThreadPoolExecutor(9) as pool:
        transfers = [pool.submit(traffic.tcp, *each, size=1 << 20) for each in [(a, b, B), (b, a, A), (a, pod, POD)] * 3]
    assert all(transfer.result() for transfer in transfers)


#: Datagrams of one flow, and bytes of each: more than fit into a packet together, or fewer.
BURSTS = [(50, 1200), (20, 50), (3, 400)]
WHY_MERGED = ["the receiver asks for it (UDP_GRO)", "rx-udp-gro-forwarding", "rx-gro-list"]


@pytest.fixture(params=WHY_MERGED)
def merging_site(lab, request):
    """(sender, b, receiver): sockets, and GRO merges what b receives. GRO does so with datagrams, too, below the tunnel's header:
    for a socket of b's that wants it, as QUIC servers do; or, by a setting of the interface, for hosts behind b. (While any socket of
    the machine wants it, that setting leaves out what is for a socket of b's own: `udp6_gro_receive`.)"""
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    lab.tund(a, DOMAIN)
    merge(b, lab.namespaces[0], "to-b")
    sender = a.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    if request.param.startswith("rx-"):
        b.run(f"ethtool -K eth0 {request.param} on")
        receiver = pod_behind(lab, b).socket(socket.AF_INET6, socket.SOCK_DGRAM)
        receiver.bind((POD, 0))
    else:
        receiver = b.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    with sender, receiver:
        yield sender, b, receiver


def burst(sender, receiver, sent: list[bytes]) -> list[bytes]:
    """Sends datagrams at once from end to end, all but the last as long as the first, and returns what arrives within a second."""
    if not receiver.getsockname()[1]:
        receiver.bind((B, 0))  # the TUN has got its address by now
    sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, len(sent[0]))
    sender.connect(receiver.getsockname()[:2])
    sender.send(b"".join(sent))
    arrived = []
    receiver.settimeout(1)
    with contextlib.suppress(TimeoutError):
        while len(arrived) < len(sent):
            octets, ancillary, *_ = receiver.recvmsg(1 << 16, 64)
            # The kernel says of how many bytes each one was that it merged for this socket.
            [step] = [struct.unpack("i", data)[0] for *_, data in ancillary] or [max(1, len(octets))]
            arrived += [octets[start : start + step] for start in range(0, len(octets), step)]
    return arrived


def holds_merged(tap, size: int) -> bool:
    """Whether a packet arrived that is longer than one datagram needs."""
    return max(map(len, tap.drain())) > size + 100


@pytest.mark.parametrize("options", ["", "--no-gro", "--workers 3"])
@pytest.mark.parametrize("count, size", BURSTS)
def test_datagrams_that_the_kernel_merged_arrive_each_as_it_was(lab, merging_site, count, size, options):
    """How long each one was is known to the kernel only, and a raw socket does not tell; notes of the receivers' filters do."""
    sender, b, receiver = merging_site
    tund = lab.tund(b, f"{DOMAIN} {options}")
    arriving = lab.packet_socket(b, "eth0")
    sent = [bytes([number]) * size for number in range(count - 1)] + [bytes([count]) * (size - 1)]
    assert burst(sender, receiver, sent) == sent
    assert holds_merged(arriving, size), "else this shows nothing"
    counted = tund.counters_once(lambda counters: counters["downlink.packets"] >= count)["downlink.packets"]
    assert counted == count, "merged ones are counted each"


@pytest.mark.parametrize("merging_site", WHY_MERGED[:2], indirect=True)
@pytest.mark.parametrize("count, size", BURSTS)
def test_without_notes_merged_datagrams_that_exceed_the_mtu_are_dropped(lab, merging_site, count, size):
    """Without CAP_BPF. Within the MTU they look like one datagram with an unfinished checksum, as a peer's kernel sends it over a
    virtual wire, and are taken for one: see docs/rfc.md."""
    sender, b, receiver = merging_site
    tund = lab.tund(b, DOMAIN, through=["setpriv", "--bounding-set", "-bpf,-sys_admin"])
    assert "CAP_BPF" in tund.transcript()
    arriving = lab.packet_socket(b, "eth0")
    sent = [bytes([number]) * size for number in range(count)]
    arrived = burst(sender, receiver, sent)
    assert holds_merged(arriving, size), "else this shows nothing"
    lost = tund.counters()["downlink.unfinished-oversized"]
    if count * size > 1480:
        assert lost and set(arrived) <= set(sent)
    else:
        assert not lost and b"".join(arrived) == b"".join(sent)
