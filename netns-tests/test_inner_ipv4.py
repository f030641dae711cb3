"""IPv4 in IPv4, point to point: --mode ipip and any.

    far end 10.0.0.2 ------ eth0 10.0.0.1 host, tund0 (fd12:3456:7800:1::1)

What is inside has addresses of 172.16.0.0/16. The host does not forward: it takes no notice of what is not for itself.
"""

import itertools
import random
import socket

import pytest

import checksum
import traffic
from packets import HERE, ICMP, IP, LOCAL, PEER, TCP, THERE, UDP, Raw, inner
from wire import HostOnAWire

#: Something behind the host and behind the far end, and an address of the host itself.
NEAR, FAR, HOST = "172.16.1.1", "172.16.2.1", "172.16.1.77"
#: A protocol for experiments (RFC 3692): no stack answers it.
NOBODYS = 253


@pytest.fixture(scope="module")
def host(shared_lab):
    made = HostOnAWire(shared_lab, f"--remote {PEER} --mode any --address {HERE}/40")
    made.host.ip(f"addr add {HOST}/16 dev tund0")
    return made


def inner4(source: str = NEAR, destination: str = FAR, payload=b"payload", **fields) -> IP:
    """An IPv4 packet as tund's host sends it."""
    if isinstance(payload, bytes):
        fields.setdefault("proto", NOBODYS)
        payload = Raw(payload)
    return IP(src=source, dst=destination, **fields) / payload


def from_peer(payload=None, **fields) -> IP:
    """An IPv4 packet from the far end to something behind the host, in protocol 4."""
    payload = inner4(FAR, NEAR) if payload is None else payload
    fields = {"source": PEER, "destination": LOCAL} | fields
    return IP(src=fields.pop("source"), dst=fields.pop("destination"), proto=4, **fields) / payload


def outer_of(seen) -> list[IP]:
    """The tunnel packets on the wire but for the ping's."""
    return [IP(packet) for packet in seen.to_wire if packet[9] == 4]


@pytest.mark.parametrize("df", [0, "DF"], ids=["may be fragmented", "DF"])
@pytest.mark.parametrize("tos", [0, 0xB8, 0xB9, 0xBA, 0xBB])
def test_the_outer_header(host, tos, df):
    """TOS is inherited, CE becomes ECT(0); DF is the tunnel's."""
    packet = bytes(inner4(tos=tos, ttl=7, flags=df))
    [sent] = outer_of(host.observe(from_host=[packet]))
    assert (sent.src, sent.dst, sent.proto, sent.ttl) == (LOCAL, PEER, 4, 64)
    assert sent.tos == (0xBA if tos == 0xBB else tos)
    assert sent.flags == "DF" and sent.id != 0 and len(sent) == 20 + len(packet)
    assert bytes(sent.payload) == packet, "and what is inside stays as it is"


def test_options_and_fragments_cross(host):
    packets = [bytes(packet) for packet in (
        inner4(options=b"\x01" * 8), inner4(flags="MF"), inner4(frag=5), inner4(payload=b""), inner4(flags="evil"),
        inner4(payload=UDP(sport=1, dport=2) / b"odd"), inner4(payload=ICMP() / b"ping"))]  # fmt: skip
    seen = host.observe(from_host=packets)
    assert [bytes(sent.payload) for sent in outer_of(seen)] == packets
    assert seen.counters["uplink.packets"] == len(packets)
    assert seen.counters["uplink.bytes"] == sum(map(len, packets)), "bytes of the inner packets"
    seen = host.observe(from_wire=[from_peer(packet) for packet in packets])
    assert seen.to_host == packets
    assert seen.counters["downlink.packets"] == len(packets)


@pytest.mark.parametrize("outer, within", itertools.product(range(4), range(4)))
def test_congestion_marks(host, outer, within):
    """The kernel's table; where the inner header changes, its checksum follows (scapy computes it from scratch)."""
    dscp = 0xB8
    seen = host.observe(from_wire=[from_peer(inner4(FAR, NEAR, tos=dscp | within), tos=outer)])
    if outer == 3 and within == 0:
        assert seen.to_host == [] and seen.counters["downlink.ecn"] == 1
        return
    marked = 3 if outer == 3 else 1 if (outer, within) == (1, 2) else within
    assert seen.to_host == [bytes(inner4(FAR, NEAR, tos=dscp | marked))]


DOWNLINK_DROPS = {
    "short": (from_peer(bytes(inner4())[:19]), "downlink.short"),
    "nothing": (from_peer(b""), "downlink.short"),
    "IPv6 inside": (from_peer(inner()), "downlink.not-ipv4"),
    "version 5": (from_peer(b"\x55" + bytes(30)), "downlink.not-ipv4"),
    "header cut off": (from_peer(bytes(inner4(options=b"\x01" * 40))[:40]), "downlink.truncated"),
    "header of 16 bytes": (from_peer(b"\x44" + bytes(inner4())[1:]), "downlink.truncated"),
    "truncated": (from_peer(bytes(inner4(FAR, NEAR))[:-1]), "downlink.truncated"),
    "shorter than its header": (from_peer(inner4(FAR, NEAR, len=19)), "downlink.truncated"),
    "4in4in4": (from_peer(inner4(FAR, NEAR, payload=inner4())), "downlink.nested-tunnel"),
    "6in4in4": (from_peer(inner4(FAR, NEAR, payload=inner())), "downlink.nested-tunnel"),
    "a fragment of a tunnel": (from_peer(inner4(FAR, NEAR, proto=41, frag=9)), "downlink.nested-tunnel"),
    **{f"from {source}": (from_peer(inner4(source, NEAR)), "downlink.inner-source-invalid")
       for source in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "255.255.255.255")},
}  # fmt: skip


@pytest.mark.parametrize("packet, reason", DOWNLINK_DROPS.values(), ids=DOWNLINK_DROPS)
def test_what_is_not_taken(host, packet, reason):
    seen = host.observe(from_wire=[packet])
    assert seen.to_host == [] and seen.counters == {reason: 1}
    assert seen.to_wire == [], "nothing is said about it"


def test_another_host_is_not_heard(host):
    """Its packets find none of tund's sockets."""
    seen = host.observe(from_wire=[from_peer(source="10.0.0.3")])
    assert not seen.to_host and not seen.counters and not seen.to_wire


def test_padding_is_left_out(host):
    packet = bytes(inner4(FAR, NEAR))
    assert host.observe(from_wire=[from_peer(packet + b"padding")]).to_host == [packet]


UPLINK_DROPS = {
    "truncated": (bytes(inner4())[:-1], "uplink.truncated"),
    "shorter than its header": (bytes(inner4(len=19)), "uplink.truncated"),
    "header of 16 bytes": (b"\x44" + bytes(inner4())[1:], "uplink.truncated"),
    "4in4in4": (bytes(inner4(payload=inner4())), "uplink.nested-tunnel"),
    "6in4in4": (bytes(inner4(payload=inner())), "uplink.nested-tunnel"),
    "version 5": (b"\x55" + bytes(40), "uplink.not-ipv6"),
}  # fmt: skip


@pytest.mark.parametrize("packet, reason", UPLINK_DROPS.values(), ids=UPLINK_DROPS)
def test_what_is_not_sent(host, packet, reason):
    seen = host.observe(from_host=[packet])
    assert outer_of(seen) == [] and seen.counters == {reason: 1}


def unfinished(packet: IP) -> bytes:
    """The transport's checksum as a stack leaves it to a device: the pseudo-header's sum."""
    octets, field = bytearray(bytes(packet)), 36 if packet.proto == 6 else 26
    pseudo = octets[12:20] + bytes([0, packet.proto]) + (len(octets) - 20).to_bytes(2, "big")
    octets[field : field + 2] = checksum.folded(pseudo).to_bytes(2, "big")
    return bytes(octets)


@pytest.mark.parametrize("finish", [bytes, unfinished], ids=["finished", "unfinished"])
@pytest.mark.parametrize("size", [0, 1, 1000, 1452])
def test_a_datagram_arrives(host, finish, size):
    """Whichever of the two its checksum is, a process of the host gets it."""
    payload = random.randbytes(size)
    with host.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((HOST, 4242))
        host.wire.send(from_peer(finish(IP(bytes(inner4(FAR, HOST, payload=UDP(sport=53, dport=4242) / Raw(payload)))))))
        assert receiver.recv(2048) == payload


@pytest.mark.parametrize("length", [8, 9, 1000, 1452])
def test_a_datagram_leaves_finished(host, length):
    with host.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        host.wire.drain()
        sender.sendto(random.randbytes(length), (FAR, 9))
        _, to_wire = host.settle()
    [sent] = [packet[20:] for packet in to_wire if packet[9] == 4]
    again = IP(sent)
    del again.chksum, again[UDP].chksum
    assert bytes(again) == sent, "scapy's checksums are the same"


@pytest.mark.parametrize("finish", [bytes, unfinished], ids=["finished", "unfinished"])
def test_mss_clamp(lab, finish):
    host = HostOnAWire(lab, f"--remote {PEER} --mode any --address {HERE}/40 --mss-clamp auto")
    def syn(size: int) -> IP:
        return IP(bytes(inner4(FAR, NEAR, payload=TCP(flags="S", options=[("WScale", 7), ("MSS", size)]))))

    assert host.observe(from_host=[syn(9000)]).to_wire[0][20:] == bytes(syn(1440))
    assert host.observe(from_wire=[from_peer(finish(syn(9000)))]).to_host == [finish(syn(1440))]


def test_without_pmtudisc(lab):
    """DF is the inner packet's then."""
    host = HostOnAWire(lab, f"--remote {PEER} --mode any --address {HERE}/40 --no-pmtudisc --ttl inherit --tos 0x10")
    packets = [inner4(ttl=9, flags=flags, tos=0xB9) for flags in (0, "DF")]
    free, bound = outer_of(host.observe(from_host=packets))
    assert free.flags == 0 and bound.flags == "DF"
    assert (free.ttl, free.tos) == (9, 0x11)
    assert host.observe(from_host=[inner4(ttl=0)]).counters == {"uplink.hop-limit-zero": 1}


@pytest.mark.parametrize("mode, here", [("ipip", None), ("any", "fd00:a::1")])
def test_two_hosts(lab, mode, here):
    """Pings, TCP and UDP between two tunds, over four workers' filters; with super-packets on both sides."""
    a, b = lab.underlay({"a": "10.0.0.1/24", "b": "10.0.0.2/24"})
    tunds = []
    for host, peer, own, address in ((a, 2, NEAR, "fd00:a::1/64"), (b, 1, FAR, "fd00:a::2/64")):
        v6 = f"--address {address}" if here else ""
        tunds.append(lab.tund(host, f"--remote 10.0.0.{peer} --mode {mode} --workers 4 {v6}"))
        host.ip(f"addr add {own}/16 dev tund0")
    for sender, receiver, address in ((a, b, FAR), (b, a, NEAR)):
        assert sender.ping(address, count=3)
        assert sender.ping(address, size=1452) and sender.ping(address, size=4000)
        assert traffic.tcp(sender, receiver, address, size=8 << 20)
        assert traffic.udp(sender, receiver, address, source=NEAR if receiver is b else FAR)
    # Only IPv4 so far.
    for tund in tunds:
        counters = tund.counters()
        assert counters["offload.split"] > 0, "TCP came from the TUN in super-packets"
        lost = {name: count for name, count in counters.items() if name.startswith("downlink.") and count}
        assert set(lost) == {"downlink.packets", "downlink.bytes"}, lost
    if here:
        assert b.ping(here) and traffic.tcp(b, a, here) and traffic.udp(b, a, here)
    else:
        assert "inet6" not in a.show("addr show dev tund0"), "there is nobody to speak IPv6 with"


def test_ipip_carries_no_ipv6(lab):
    """Nor does it listen to protocol 41: without another socket the host says so."""
    host = lab.namespace("host")
    far = lab.namespace("far")
    lab.veth(host, "eth0", far, "eth0")
    host.ip(f"addr add {LOCAL}/24 dev eth0")
    far.ip(f"addr add {PEER}/24 dev eth0")
    tund = lab.tund(host, f"--remote {PEER} --mode ipip --workers 1")
    lab.packet_socket(host, "tund0").send(inner(THERE, HERE))
    tund.counters_once(lambda counters: counters["uplink.not-ipv4"] == 1)


@pytest.fixture
def narrow(lab):
    """(host, far end): the path between them takes 1400 bytes, which only the router on it knows.

    host 10.0.0.1 --1500-- 10.0.0.9 router 10.9.0.9 --1400-- 10.9.0.2 far end
    """
    host, router, far = (lab.namespace(name) for name in ("host", "router", "far"))
    lab.veth(host, "eth0", router, "near")
    lab.veth(router, "far", far, "eth0", mtu=1400)
    host.ip("addr add 10.0.0.1/24 dev eth0", "route add default via 10.0.0.9")
    far.ip("addr add 10.9.0.2/24 dev eth0", "route add default via 10.9.0.9")
    router.ip("addr add 10.0.0.9/24 dev near", "addr add 10.9.0.9/24 dev far")
    router.sysctl(ipv4__ip_forward=1)
    tund = lab.tund(host, "--remote 10.9.0.2 --mode ipip --workers 1")
    lab.tund(far, "--remote 10.0.0.1 --mode ipip --workers 1")
    host.ip(f"addr add {NEAR}/16 dev tund0")
    far.ip(f"addr add {FAR}/16 dev tund0")
    return host, far, tund


def test_path_mtu(narrow):
    """What may not be fragmented is too big, and its source learns what fits; what may goes in IPv4 fragments."""
    host, far, tund = narrow
    lengths = [host.ping(FAR, size=1452, options="-M do -W 1") for _ in range(3)]
    assert not lengths[-1] and "mtu = 1380" in repr(lengths), lengths
    assert "mtu 1380" in host.show(f"route get {FAR}"), host.show(f"route get {FAR}")
    assert host.ping(FAR, size=1352, options="-M do"), "as long as the path takes"
    assert tund.counters()["answer.too-big"] > 0
    assert [host.ping(FAR, size=1452, options="-M dont -W 1") for _ in range(3)][-1]
    assert traffic.tcp(host, far, FAR) and traffic.tcp(far, host, NEAR)


def test_fragmentation_needed(lab):
    """The error, field by field, and to whom none is sent."""
    host = HostOnAWire(lab, f"--remote {PEER} --mode any --address {HERE}/40 --mtu 1480", mtu=1400)
    long = b"x" * 1420
    packet = bytes(inner4(payload=long, flags="DF", options=b"\x01" * 4))
    [error] = map(IP, host.observe(from_host=[packet]).to_host)
    assert (error.src, error.dst, error.proto) == (FAR, NEAR, 1), "as if the destination said so"
    message = error[ICMP]
    assert (message.type, message.code, message.nexthopmtu) == (3, 4, 1380) and len(error) == 576
    assert bytes(message.payload) == packet[: 576 - 28]
    again = error.copy()
    del again.chksum, again[ICMP].chksum
    assert bytes(again) == bytes(error), "scapy's checksums are the same"
    for quiet in (inner4("0.0.0.0", payload=long, flags="DF"), inner4(NEAR, "224.0.0.5", payload=long, flags="DF"),
                  inner4(payload=ICMP(type=3, code=1) / long, flags="DF")):  # fmt: skip
        seen = host.observe(from_host=[quiet])
        assert seen.to_host == [] and seen.counters == {"uplink.too-big": 1}
    whole = bytes(inner4(payload=long))
    seen = host.observe(from_host=[whole])
    assert seen.to_host == [] and len(outer_of(seen)) == 2, "without DF inside: two fragments"
