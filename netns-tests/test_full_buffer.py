"""A receive buffer that is full makes nobody hear `protocol unreachable`.

    far end: flood, listens for ICMP ------ eth0 host, tund stopped (SIGSTOP)

Where the only matching raw socket has no room, the kernel tells the sender that there is no such protocol here. Peers would
take the tunnel for dead exactly when it is busy.
"""

import signal

import pytest

from packets import DOMAIN, IP, in_ipv4, inner
from wire import HostOnAWire, show


def drops_of_raw_sockets(host) -> int:
    """Packets that found a raw socket full: the last column of /proc/net/raw."""
    lines = host.run("cat /proc/net/raw").stdout.splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines)


@pytest.mark.parametrize("workers", [1, 2])
def test_full_receive_buffer(lab, workers):
    host = HostOnAWire(lab, f"{DOMAIN} --workers {workers}")
    host.host.sysctl(ipv4__icmp_ratelimit=0, ipv4__icmp_msgs_per_sec=1000000, ipv4__icmp_msgs_burst=1000000)
    packet = bytes(in_ipv4(inner(payload=bytes(1400))))
    host.tund.signal(signal.SIGSTOP)
    try:
        sent = 0
        while not drops_of_raw_sockets(host.host):
            assert sent < 200 << 20, "200 MiB fit into the buffers of a tund that does not read?"
            host.wire.send(*[packet] * 2000)
            sent += 2000 * len(packet)
        host.wire.send(*[packet] * 2000)
    finally:
        host.tund.signal(signal.SIGCONT)
    assert sent > 8 << 20, "the buffer holds at least 8 MiB"
    _, seen = host.settle(tries=10)
    assert not [reply for reply in seen if IP(reply).proto == 1], show(seen)
