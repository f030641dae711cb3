"""ICMPv4 errors that somebody on the network makes up: few that would change how the tunnel sends, and many that would keep it busy.

    far end, the attacker and the peer ------ eth0 host, tund0 --- packet socket

Nothing proves who sent an ICMP error. Whoever knows the two ends of a tunnel can quote a packet between them.
"""

import contextlib
import struct
import threading
import time

import pytest
from scapy.utils import checksum

from packets import DOMAIN, HERE, IP, LOCAL, PEER, THERE, Raw, inner, numbered
from wire import HostOnAWire, show

FORGER = "10.99.0.1"
REMOTE = f"--remote {PEER} --address {HERE}/40"


def forged(kind: int, code: int, mtu: int = 0, source: str = LOCAL, destination: str = PEER) -> bytes:
    """About a tunnel packet that was never sent."""
    quote = bytes(IP(src=source, dst=destination, proto=41, ttl=60, flags="DF") / inner(HERE, THERE, bytes(16)))
    message = struct.pack("!BBHHH", kind, code, 0, 0, mtu) + quote
    message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
    return bytes(IP(src=FORGER, dst=LOCAL, proto=1) / Raw(message))


def told(seen) -> list[int]:
    """The MTUs of Packet Too Big."""
    return [int.from_bytes(packet[44:48], "big") for packet in seen.to_host if packet[6] == 58 and packet[40] == 2]


def sent(host, size: int):
    """What became of an inner packet of `size` bytes."""
    packet = bytes(inner(HERE, THERE, numbered(1, size - 40)[0]))
    seen = host.observe(from_host=[packet])
    return packet, [IP(outer) for outer in seen.to_wire if outer[9] == 41], seen


# Fragmentation needed


@pytest.mark.parametrize("mtu", [552, 600, 1000, 1299])
@pytest.mark.parametrize("options", [DOMAIN, REMOTE], ids=["domain", "point to point"])
def test_fragmentation_needed_fragments_nothing(lab, options, mtu):
    """What may be as long as 1280 bytes goes whole, for the routers of the path to fragment. (The reassembly of the peer holds
    4 MiB of forged fragments, and then takes none of anybody's for 30 s.) The source of a longer one is told to send 1280."""
    host = HostOnAWire(lab, options)
    host.wire.send(forged(3, 4, mtu))
    host.settle()
    for size in (100, 500, 540, 580, 980, 1279, 1280):
        packet, outers, seen = sent(host, size)
        assert [bytes(outer.payload) for outer in outers] == [packet], show(seen.to_wire)
        assert outers[0].flags == ("DF" if size + 20 <= mtu else 0) and not told(seen)
    for size in (1281, 1400, 1480):
        _, outers, seen = sent(host, size)
        assert not outers and told(seen) == [1280]


def test_fragmentation_needed_means_nothing_without_pmtudisc(lab):
    """Nobody has reason to say it about packets without DF."""
    host = HostOnAWire(lab, f"{DOMAIN} --no-pmtudisc")
    host.wire.send(forged(3, 4, 600))
    host.settle()
    for size in (100, 1280, 1480):
        packet, outers, _ = sent(host, size)
        assert [bytes(outer.payload) for outer in outers] == [packet] and outers[0].flags == 0


@pytest.mark.parametrize("narrow", ["link", "route", "default route", "table of a mark"])
def test_a_narrow_link_or_route_of_this_host_still_fragments(lab, narrow):
    """With the error, too: what this host knows by itself is no rumour."""
    marked = " --fwmark 7" if narrow == "table of a mark" else ""
    host = HostOnAWire(lab, f"{DOMAIN} --mtu 1280{marked}")
    if narrow == "link":
        host.host.ip("link set eth0 mtu 1000")
    elif narrow == "route":
        host.host.ip(f"route add {PEER} dev eth0 mtu 1000")
    elif narrow == "default route":
        host.host.ip("addr change 10.0.0.1/32 dev eth0", "route change default dev eth0 mtu 1000")
        host.host.ip("route flush 10.0.0.0/8")
    elif narrow == "table of a mark":
        host.host.ip("route add default dev eth0 mtu 1000 table 77", "rule add fwmark 7 table 77")
    for error in (None, forged(3, 4, 600)):
        if error:
            host.wire.send(error)
            host.settle()
        packet, outers, _ = sent(host, 1280)
        assert len(outers) > 1 and all(len(outer) <= 1000 and "DF" not in outer.flags for outer in outers)
        assert len({outer.id for outer in outers}) == 1
        assert b"".join(bytes(outer.payload) for outer in sorted(outers, key=lambda outer: outer.frag)) == packet


def test_errors_about_ourselves(lab):
    """A quote from the own address to the own address belongs to no packet. In a sender's error queue it would take the room of what
    the kernel has to say about a packet that is too long, and as its pending error make a send fail."""
    host = HostOnAWire(lab)
    host.host.ip(f"route add {PEER} dev eth0 mtu 1400")
    for _ in range(5):
        host.wire.send(*[forged(*kind, destination=LOCAL) for kind in ((3, 1), (3, 3), (11, 0))] * 500)
        for _ in range(3):
            _, outers, seen = sent(host, 1480)
            assert not outers and told(seen) == [1380]
            packet, outers, seen = sent(host, 1300)
            assert [bytes(outer.payload) for outer in outers] == [packet] and not seen.to_host
    assert not [name for name in host.tund.counters() if name.startswith("underlay-send")]


# Floods


@contextlib.contextmanager
def flood(host, *errors: bytes, rate: int = 10_000):
    """Sends them in turn, `rate` a second, while the body runs; yields a function that says how many."""
    count, stop = 0, threading.Event()

    def run():
        nonlocal count
        start = time.monotonic()
        while not stop.wait(0.002):
            due = int((time.monotonic() - start) * rate) - count
            host.wire.send(*[errors[(count + index) % len(errors)] for index in range(due)])
            count += due

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: count
    finally:
        stop.set()
        thread.join()


def cpu_seconds(host) -> dict[str, float]:
    """{"control" or a worker's name: what the thread has run}, in seconds."""
    return {
        "control" if int(thread.name) == host.tund.pid else (thread / "comm").read_text().strip():
            int((thread / "schedstat").read_text().split()[0]) / 1e9
        for thread in host.tund.threads()
    }  # fmt: skip


HARD = [(3, 2), (3, 3), (3, 4), (3, 10), (12, 0)]


@pytest.mark.parametrize("options", [DOMAIN, REMOTE], ids=["domain", "point to point"])
def test_a_flood_of_errors_costs_no_packet_and_no_cpu(lab, options):
    """Point to point, each of these ends a receive: a connected socket hears them. The wire is one, so the peer's packets are in
    the queue behind the errors."""
    host = HostOnAWire(lab, options)
    packets = [bytes(IP(src=PEER, dst=LOCAL, proto=41) / inner(THERE, HERE, payload)) for payload in numbered(200)]
    before = host.tund.counters()
    with flood(host, *(forged(kind, code, 1400) for kind, code in HARD)) as sent_errors:
        time.sleep(0.3)
        start, used, errors = time.monotonic(), cpu_seconds(host), sent_errors()
        for turn in range(100):
            host.wire.send(*packets[turn * 2 : turn * 2 + 2])
            time.sleep(0.02)
        took = time.monotonic() - start
        used = {name: seconds - used[name] for name, seconds in cpu_seconds(host).items()}
        errors = sent_errors() - errors
    rise = host.tund.counters_once(lambda now: now["downlink.packets"] >= before["downlink.packets"] + 200)
    assert rise["downlink.packets"] == before["downlink.packets"] + 200
    assert rise["downlink.overflow"] == 0
    assert errors > 5000 * took, "the flood is one"
    share = {name: seconds / took for name, seconds in used.items()}
    assert all(of < 0.5 for of in share.values()), share
    assert share["control"] < 0.1, share
    heard = sum(count for name, count in rise.items() if name.startswith("icmp."))
    assert 500 < heard < 3000 * (took + 1.5), "some of them are heard, and no more than some"
    if options == REMOTE:
        assert any(name.startswith("underlay-receive.E") for name in rise), rise


def test_the_control_thread_rests_after_a_flood(lab):
    """The kernel queues an error and then makes it the socket's pending one; where the queue is read in between, the second half
    was left behind, and with it a socket that is ready for ever. That is by chance, so this shows it seldom."""
    host = HostOnAWire(lab)
    with flood(host, *(forged(kind, code) for kind, code in HARD)):
        time.sleep(2)
    time.sleep(0.3)
    before = cpu_seconds(host)["control"]
    time.sleep(1)
    assert cpu_seconds(host)["control"] - before < 0.05
    host.settle()
