"""Errors of the kernel: counted by their errno, logged at most once a second each, and never the end of the loop.

    far end ------ eth0 host, tund0 --- packet socket

Only a TUN that is deleted ends tund.
"""

import contextlib
import re
import time

import pytest

from packets import DOMAIN, HERE, ICMP, IP, THERE, UDP, Raw, in_ipv4, inner, numbered
from wire import HostOnAWire

#: How tund's log may call an errno besides its symbol.
WORDS = {
    "EPERM": "Operation not permitted",
    "ENETUNREACH": "Network is unreachable",
    "ENETDOWN": "Network is down",
    "ENOBUFS": "No buffer space available",
    "EIO": "Input/output error",
}


@pytest.fixture
def host(lab):
    made = HostOnAWire(lab)
    # Without this the kernel takes the addresses off an interface that goes down, as it does with every interface.
    made.host.sysctl(ipv6__conf__all__keep_addr_on_down=1, ipv6__conf__tund0__keep_addr_on_down=1)
    return made


def errors(host) -> dict[str, int]:
    """{errno: count} of all errors since the start."""
    return {
        name.split(".")[1]: count for name, count in host.tund.counters().items() if re.search(r"\.E[A-Z0-9]+$", name)
    }


def log_lines(host, errno: str) -> list[str]:
    return [line for line in host.tund.err if errno in line or WORDS[errno] in line]


def send_for(host, seconds: float, size: int = 100) -> int:
    """Valid packets from the host's side, some every few milliseconds; returns how many."""
    packets = [inner(HERE, THERE, payload) for payload in numbered(10, size)]
    end, sent = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        host.tun.send(*packets)
        sent += len(packets)
        time.sleep(0.02)
    return sent


def assert_counted_and_logged(host, errno: str, sent: int, seconds: float):
    """`sent` packets met the error, or most of them, during `seconds`."""
    while (counted := errors(host).get(errno, 0)) < sent // 2:
        assert host.tund.running, host.tund.transcript()
        seconds += 0.1
        assert seconds < 20, f"{counted} of {sent} counted under {errno}: {errors(host)}\\n{host.tund.transcript()}"
        time.sleep(0.1)
    assert set(errors(host)) == {errno}
    assert 1 <= len(log_lines(host, errno)) <= seconds + 2, host.tund.transcript()


def test_firewall(host):
    host.host.run(["nft", "add table ip wall; add chain ip wall output { type filter hook output priority 0; };"
                          " add rule ip wall output ip protocol 41 drop"])  # fmt: skip
    sent = send_for(host, 1.5)
    assert_counted_and_logged(host, "EPERM", sent, 1.5)
    host.host.run("nft delete table ip wall")
    host.settle(tries=5)


def test_no_route(host):
    host.host.ip("route del default", "route del 10.0.0.0/8 dev eth0")
    sent = send_for(host, 1.5)
    assert_counted_and_logged(host, "ENETUNREACH", sent, 1.5)
    host.host.ip("route add default dev eth0")
    host.settle(tries=5)


def test_underlay_down_and_up(host):
    host.host.ip("link set eth0 down")
    sent = send_for(host, 1.5)
    assert_counted_and_logged(host, "ENETUNREACH", sent, 1.5)
    host.host.ip("link set eth0 up", "route add default dev eth0")
    host.settle(tries=10)


def test_route_with_a_small_mtu(host):
    """What is longer than the path takes is no failure: its sources are told, and the path may change again."""
    host.host.ip("route add 10.0.0.2/32 dev eth0 mtu 1350")
    sent = send_for(host, 0.5, size=1400)
    assert host.tund.counters_once(lambda counters: counters["uplink.too-big"] == sent)
    assert not errors(host)
    host.settle()
    host.host.ip("route del 10.0.0.2/32 dev eth0")
    seen = host.observe(from_host=[inner(HERE, THERE, bytes(1400))])
    assert len(seen.to_wire) == 1


def test_full_queue(host):
    """A token bucket that holds two packets and lets a kilobyte out each second: the rest is dropped, and said so."""
    host.host.run("tc qdisc add dev eth0 root tbf rate 8kbit burst 3000 limit 3000")
    send_for(host, 1.5, size=1000)
    assert_counted_and_logged(host, "ENOBUFS", 20, 1.5)
    host.host.run("tc qdisc del dev eth0 root")
    host.settle(tries=5)


def test_tun_down_and_up(host):
    host.host.ip("link set tund0 down")
    packets = [in_ipv4(inner(payload=payload)) for payload in numbered(20)]
    for _ in range(10):
        host.wire.send(*packets)
        time.sleep(0.1)
    assert_counted_and_logged(host, "EIO", 20, 1)
    host.host.ip("link set tund0 up")
    host.settle(tries=10)
    assert len(host.observe(from_wire=packets).to_host) == 20


def test_all_of_them_in_turn(host):
    """And after it all both directions carry."""
    for command, undo in [
        ("link set tund0 down", "link set tund0 up"),
        ("link set eth0 down", "link set eth0 up"),
        ("route del 10.0.0.0/8 dev eth0", "route add 10.0.0.0/8 dev eth0"),
    ] * 2:  # fmt: skip
        host.host.ip(command)
        for _ in range(20):
            with contextlib.suppress(OSError):  # of ours: an interface that is down takes nothing
                host.wire.send(in_ipv4())
                host.tun.send(inner(HERE, THERE))
        host.host.ip(undo)
        host.host.run("ip route replace default dev eth0")
        host.settle(tries=10)


def test_an_icmp_error_from_the_underlay_does_not_stop_sending(host):
    """Each ICMPv4 error about a packet stays with the raw socket as a pending error (IP_RECVERR) until it is read."""
    [sent] = host.observe(from_host=[inner(HERE, THERE)]).to_wire
    kinds = [(3, code) for code in (0, 1, 2, 3, 5, 9, 10, 13)] + [(11, 0), (11, 1), (12, 0), (4, 0)]
    errors_back = [IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=kind, code=code) / sent for kind, code in kinds]
    for _ in range(20):
        host.wire.send(*errors_back)
        packets = [inner(HERE, THERE, payload) for payload in numbered(10)]
        assert len(host.observe(from_host=packets).to_wire) == 10


def test_a_smaller_path_mtu_is_learnt_from_the_underlay(host):
    """Fragmentation needed, 1300: the kernel remembers. Longer packets are dropped and their sender is told; shorter ones pass
    as they are."""
    long, short = inner(HERE, THERE, bytes(1400)), inner(HERE, THERE, bytes(1200))
    [sent] = host.observe(from_host=[long]).to_wire
    host.wire.send(IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=3, code=4, nexthopmtu=1300) / sent)
    seen = host.observe(from_host=[long])
    assert not seen.to_wire and seen.counters["uplink.too-big"] == 1 and seen.counters["answer.too-big"] == 1
    [answer] = seen.to_host
    assert answer[40] == 2 and int.from_bytes(answer[44:48], "big") == 1280 and answer[48:] == bytes(long)[:1232]
    [whole] = map(IP, host.observe(from_host=[short]).to_wire)
    assert bytes(whole.payload) == bytes(short) and whole.flags == "DF"


@pytest.mark.parametrize("workers", [1, 3])
def test_a_deleted_tun_ends_it(lab, workers):
    host = HostOnAWire(lab, f"{DOMAIN} --workers {workers}")
    deleted = time.monotonic()
    host.host.ip("link del tund0")
    code = host.tund.wait()
    took = time.monotonic() - deleted
    assert code == 1, host.tund.transcript()
    assert took < 1, f"{took:.2f} s"
    assert re.search(r"tund0.*(deleted|gone|removed|no longer)", "\n".join(host.tund.err)), host.tund.transcript()


def test_a_dead_neighbour_costs_the_others_nothing(lab):
    """Packets to a host that does not answer ARP wait in its queue, charged to the socket they came from, until the kernel
    gives up on it. Others must not wait with them."""
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    tund = lab.tund(a, f"{DOMAIN} --workers 1")
    lab.tund(b, DOMAIN)
    assert a.ping(THERE)
    into_tun = lab.packet_socket(a, "tund0")
    to_the_dead = [
        inner(HERE, f"fd12:3456:7800:{host:x}::1", UDP(sport=1, dport=9) / Raw(bytes(1400))) for host in range(16, 48)
    ]
    for _ in range(10):
        into_tun.send(*to_the_dead * 3)
        assert a.ping(THERE, count=2, options="-i 0.05")
    assert tund.running
