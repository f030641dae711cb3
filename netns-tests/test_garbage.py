"""Random packets from the underlay: each is counted once, and tund lives on.

    far end (no tund) ------ eth0 10.0.0.1 host, tund0

The seed is printed with every failure; TUND_SEED repeats it.
"""

import os
import random

import pytest

from packets import HERE, IP, LOCAL, PEER, THERE, IPv6, in_ipv4, inner
from wire import HostOnAWire, show

SEED = int(os.environ.get("TUND_SEED") or random.randrange(1 << 32))
PACKETS = 500


@pytest.fixture(scope="module")
def host(shared_lab):
    """Not deaf and not mute: the host answers what it gets, as hosts do. The rate limit of its errors is off."""
    made = HostOnAWire(shared_lab)
    made.host.sysctl(ipv6__icmp__ratelimit=0)
    return made


@pytest.fixture
def chance():
    print(f"TUND_SEED={SEED}")
    return random.Random(SEED)


def counted(seen) -> int:
    """Packets with a verdict: handed on or dropped for a reason."""
    return sum(rise for name, rise in seen.counters.items() if name.startswith("downlink") and name != "downlink.bytes")


def test_noise(host, chance):
    """Nothing about the packet holds but protocol 41: chance never finds an inner source of the right prefix."""
    noise = [chance.randbytes(chance.choice([0, 1, 20, 39, 40, 41, 60, 100, 1480])) for _ in range(PACKETS)]
    seen = host.observe(from_wire=[in_ipv4(octets) for octets in noise])
    assert not seen.to_host and not seen.to_wire, show(seen.to_host + seen.to_wire)
    assert counted(seen) == PACKETS and "downlink.packets" not in seen.counters


def test_noise_that_says_it_is_ipv6(host, chance):
    noise = [bytes([0x60 | chance.randrange(16)]) + chance.randbytes(chance.randrange(39, 400)) for _ in range(PACKETS)]
    seen = host.observe(from_wire=[in_ipv4(octets) for octets in noise])
    assert not seen.to_host and not seen.to_wire, show(seen.to_host + seen.to_wire)
    assert counted(seen) == PACKETS and "downlink.packets" not in seen.counters


def test_right_addresses_and_noise_behind(host, chance):
    """Any next header over random extension headers, also ones that run past the end. What passes is unchanged, and what
    the host answers goes to the peer in a tunnel packet."""
    bodies = [
        bytes(IPv6(src=THERE, dst=HERE, nh=chance.choice([0, 43, 44, 51, 60, 135, chance.randrange(256)]),
                   plen=size, tc=chance.randrange(256), fl=chance.randrange(1 << 20))) + chance.randbytes(size)
        for size in (chance.randrange(0, 120) for _ in range(PACKETS))
    ]  # fmt: skip
    seen = host.observe(from_wire=[in_ipv4(body) for body in bodies])
    assert all(packet in bodies for packet in seen.to_host)
    assert seen.counters["downlink.packets"] == len(seen.to_host)
    assert counted(seen) == PACKETS
    assert set(seen.counters) <= {"downlink.packets", "downlink.bytes", "downlink.nested-tunnel", "uplink.packets",
                                  "uplink.bytes"}
    assert all((packet.src, packet.dst, packet.proto) == (LOCAL, PEER, 41) for packet in map(IP, seen.to_wire))


def test_one_byte_changed_in_a_good_packet(host, chance):
    """Every byte of the inner header to some random values. What still passes still has the right prefixes."""
    good = bytes(inner(payload=bytes(60)))
    changed = []
    for position in range(40):
        for value in chance.sample(range(256), 12):
            changed.append(good[:position] + bytes([value]) + good[position + 1 :])
    seen = host.observe(from_wire=[in_ipv4(octets) for octets in changed])
    assert counted(seen) == len(changed)
    assert seen.counters["downlink.packets"] == len(seen.to_host)
    for packet in seen.to_host:
        assert packet[0] >> 4 == 6 and packet[8:16] == good[8:16] and packet[24:32] == good[24:32], packet.hex()
        assert len(packet) == 40 + int.from_bytes(packet[4:6], "big")


def test_noise_from_the_host(host, chance):
    """Into the TUN: nothing of it has an inner source of this host."""
    noise = [chance.randbytes(chance.randrange(1, 1480)) for _ in range(PACKETS)]
    noise[::2] = [b"\x60" + octets[1:] for octets in noise[::2]]
    for start in range(0, PACKETS, 100):
        seen = host.observe(from_host=noise[start : start + 100])
        assert not seen.to_host and not seen.to_wire, show(seen.to_host + seen.to_wire)
        assert sum(seen.counters.values()) == 100
