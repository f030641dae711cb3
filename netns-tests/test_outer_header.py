"""TTL, Don't Fragment, identification and fragmentation of the outer header.

    packet socket on tund0 -> tund on the host 10.0.0.1 ------ far end, which looks at the IPv4 header
"""

import pytest

from packets import DOMAIN, HERE, IP, LOCAL, PEER, THERE, in_ipv4, inner, numbered
from wire import HostOnAWire


@pytest.fixture(scope="module")
def host_with(one_at_a_time):
    return one_at_a_time(lambda lab, options, mtu=1500: HostOnAWire(lab, f"{DOMAIN} {options}", mtu=mtu))


def sent(host, *packets) -> list[IP]:
    return [IP(packet) for packet in host.observe(from_host=packets).to_wire]


@pytest.mark.parametrize("hop_limit", [1, 2, 63, 64, 65, 254, 255])
@pytest.mark.parametrize("options, ttl", [("", 64), ("--ttl 1", 1), ("--ttl 255", 255), ("--ttl inherit", None)])
def test_ttl(host_with, options, ttl, hop_limit):
    """ttl None: the inner hop limit. The tunnel is no hop of the inner packet, so that stays as it is."""
    packet = inner(HERE, THERE, hlim=hop_limit)
    [outer] = sent(host_with(options), packet)
    assert outer.ttl == (hop_limit if ttl is None else ttl)
    assert bytes(outer.payload) == bytes(packet)


@pytest.mark.parametrize("hop_limit", [0, 1, 255])
@pytest.mark.parametrize("ttl", [1, 255])
def test_outer_ttl_means_nothing_inside(host_with, ttl, hop_limit):
    packet = inner(hlim=hop_limit)
    assert host_with("").observe(from_wire=[in_ipv4(packet, ttl=ttl)]).to_host == [bytes(packet)]


@pytest.mark.parametrize("options", ["", "--pmtudisc"])
def test_with_pmtudisc(host_with, options):
    """Don't Fragment, and yet identifications that count, as sit's do. (One of them may be the zero between two.)"""
    outers = sent(host_with(options), *[inner(HERE, THERE, payload) for payload in numbered(16)])
    assert [outer.flags for outer in outers] == ["DF"] * 16
    assert len({outer.id for outer in outers}) == 16
    assert sum(outer.id == 0 for outer in outers) <= 1


def test_without_pmtudisc(host_with):
    outers = sent(host_with("--no-pmtudisc"), *[inner(HERE, THERE, payload) for payload in numbered(16)])
    assert [outer.flags for outer in outers] == [0] * 16
    assert len({outer.id for outer in outers}) == 16, "identifications tell fragments apart"


def reassembled(fragments: list[IP]) -> bytes:
    assert len({(part.id, part.src, part.dst) for part in fragments}) == 1
    assert [part.flags for part in fragments] == ["MF"] * (len(fragments) - 1) + [0]
    whole = b""
    for part in fragments:
        assert part.frag * 8 == len(whole)
        whole += bytes(part.payload)
    return whole


def test_without_pmtudisc_large_packets_are_fragmented(host_with):
    """A route of 1300 bytes, a tunnel of 1480."""
    host = host_with("--no-pmtudisc --mtu 1480")
    host.host.ip("route add 10.0.0.2/32 dev eth0 mtu 1300")
    packet = inner(HERE, THERE, numbered(1, 1440)[0])
    fragments = sent(host, packet)
    assert len(fragments) == 2 and all(len(part) <= 1300 for part in fragments)
    assert reassembled(fragments) == bytes(packet)


def test_1280_bytes_always_pass(host_with):
    """IPv6 counts on 1280 bytes: on a path that cannot carry them in one piece they go without Don't Fragment, as from
    sit, though --pmtudisc is on."""
    packet = inner(HERE, THERE, numbered(1, 1240)[0])
    fragments = sent(host_with("--pmtudisc", 1290), packet)
    assert len(fragments) == 2
    assert reassembled(fragments) == bytes(packet)


def test_the_rest_of_the_header(host_with):
    """No options, a checksum that is right, and the total length of what follows."""
    packet = inner(HERE, THERE)
    [outer] = sent(host_with(""), packet)
    expected = IP(src=LOCAL, dst=PEER, proto=41, ttl=64, flags="DF", id=outer.id) / packet
    assert bytes(outer) == bytes(expected)
