"""Every length, bit by bit, in both directions.

    far end ------ eth0 host, tund0 --- packet socket
           <- what goes in at one end is what comes out at the other ->
"""

import pytest

from packets import DOMAIN, HERE, IP, TCP, THERE, UDP, Raw, in_ipv4, inner, numbered
from wire import HostOnAWire, show

#: Of the whole inner packet.
LENGTHS = range(41, 1481)

#: What follows the IPv6 header, for a given number of bytes. No two segments share a flow, so nothing may merge them.
PAYLOADS = {
    "no next header": (1, lambda number, octets: octets),
    "UDP": (8, lambda number, octets: UDP(sport=1024 + number, dport=9) / Raw(octets[8:])),
    "TCP": (20, lambda number, octets: TCP(sport=1024 + number, dport=9, flags="A") / Raw(octets[20:])),
}


@pytest.fixture(scope="module")
def host_with(one_at_a_time):
    """The host, deaf to the segments it gets: its answers would be in the way."""

    @one_at_a_time
    def deaf(lab, options):
        host = HostOnAWire(lab, f"{DOMAIN} {options}")
        host.host.run(["nft", "add chain ip6 quiet input { type filter hook input priority 0; };"
                              " add rule ip6 quiet input th dport 9 drop"])
        return host

    return deaf


def packets(kind: str, source: str, destination: str) -> list[bytes]:
    least, build = PAYLOADS[kind]
    octets = numbered(len(LENGTHS), 1440)
    return [
        bytes(inner(source, destination, build(number, octets[number][:length - 40])))
        for number, length in enumerate(LENGTHS) if length - 40 >= least
    ]  # fmt: skip


def batches(whole: list, size: int = 100):
    """No queue on the way is as short as this."""
    return (whole[start : start + size] for start in range(0, len(whole), size))


def assert_same(arrived: list[bytes], sent: list[bytes]):
    lost = [packet for packet in sent if packet not in arrived]
    strange = [packet for packet in arrived if packet not in sent]
    assert not lost and not strange, f"lost:\n{show(lost)}\ninstead:\n{show(strange)}"
    assert arrived == sent, "every packet is here, but not in its order"


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("options", ["", "--tos 0 --ttl inherit"])
def test_to_the_host(host_with, kind, options):
    host = host_with(options)
    for sent in batches(packets(kind, THERE, HERE)):
        assert_same(host.observe(from_wire=map(in_ipv4, sent)).to_host, sent)


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("options", ["", "--no-pmtudisc"])
def test_to_the_wire(host_with, kind, options):
    host = host_with(options)
    for sent in batches(packets(kind, HERE, THERE)):
        assert_same([bytes(IP(packet).payload) for packet in host.observe(from_host=sent).to_wire], sent)


@pytest.mark.parametrize("length", [1481, 1500, 2000, 8000, 20000, 65535])
def test_longer_than_the_mtu_to_the_host(host_with, length):
    """Other tunnels have other MTUs, and IPv4 puts fragments together again: the packet arrives whole."""
    from packets import fragment

    whole = inner(payload=numbered(1, length - 40 - 20)[0])
    fragments = fragment(in_ipv4(whole, id=length), fragsize=1480)
    assert_same(host_with("").observe(from_wire=fragments).to_host, [bytes(whole)])
