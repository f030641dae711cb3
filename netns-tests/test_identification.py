"""The identification of packets that may be fragmented, when several workers send.

    packet socket on tund0 -> tund, two workers ------ far end, which looks at the IPv4 header

A receiver puts fragments together by source, destination, protocol and identification. Two packets to one host with one number on
their way at a time would be mixed, and with bad luck pass the checksum.
"""

import pytest

from packets import DOMAIN, HERE, THERE, UDP, Raw, inner
from wire import HostOnAWire

COUNT, FLOWS = 4000, 64


@pytest.mark.parametrize("options", ["--no-pmtudisc", ""], ids=["no-pmtudisc", "narrow route"])
def test_one_numbering_for_all_workers(lab, options):
    """Numbers in sequence, with the small steps by which the kernel hides how much it sends (ip_idents_reserve)."""
    host = HostOnAWire(lab, f"{DOMAIN} --workers 2 {options}")
    size = 64
    if not options:
        host.host.ip("route add 10.0.0.2 dev eth0 mtu 600")
        size = 800
    packets = [bytes(inner(HERE, THERE, UDP(sport=1000 + number % FLOWS, dport=9) / Raw(bytes(size)))) for number in range(COUNT)]
    seen = []
    for start in range(0, COUNT, 200):
        host.tun.send(*packets[start : start + 200])
        seen += [packet for packet in host.wire.receive(200 if options else 400) if packet[9] == 41]
    outers = [packet for packet in seen if int.from_bytes(packet[6:8], "big") & 0x1FFF == 0]
    assert len(outers) == COUNT and not [packet for packet in outers if packet[6] & 0x40], "all there, without DF"
    numbers = [int.from_bytes(packet[4:6], "big") for packet in outers]
    assert len(set(numbers)) == COUNT, "none comes twice"
    steps = [(after - before + 32768) % 65536 - 32768 for before, after in zip(numbers, numbers[1:])]
    assert max(map(abs, steps)) < 2000, "one sequence"
