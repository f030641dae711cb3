"""What the receiving kernel merged (GRO) goes on as the packets that came, whatever links there are behind the host.

    pod of a --- a 10.0.0.1 --- switch --- 10.0.0.2 b --- pod of b
     mtu M       tund0                         tund0      mtu M

GRO merges below the tunnel's header, and a raw socket does not tell. What fits into the TUN's MTU may be too long for a link
behind; what is cut in the wrong place is broken.
"""

import contextlib
import ctypes
import hashlib
import os
import random
import signal
import socket
import struct
import threading
import time

import pytest

from lab import PATIENCE
from packets import DOMAIN
from test_offloads import B, UDP_GRO, UDP_SEGMENT, merge

WITHOUT_NOTES = ["setpriv", "--bounding-set", "-bpf,-sys_admin"]


def pod(lab, host, number: int, mtu: int, family=6):
    """(namespace, its address), behind `host` on a link of this MTU."""
    made = lab.namespace(f"pod{number}")
    lab.veth(host, "pod", made, "eth0", mtu=mtu)
    address, length = (f"fd12:3456:7800:{number}::100", 128) if family == 6 else (f"172.16.{number}.100", 32)
    host.sysctl(ipv6__conf__all__forwarding=1, ipv4__ip_forward=1)
    gateway, rest = ("fe80::1", "") if family == 6 else (f"172.16.{number}.1", "onlink")
    host.ip(f"addr add {gateway}/{64 if family == 6 else 32} dev pod {'nodad' * (family == 6)}",
            f"route add {address}/{length} dev pod")
    made.ip(f"addr add {address}/{length} dev eth0 {'nodad' * (family == 6)}",
            f"route add default via {gateway} dev eth0 {rest}")
    return made, address


def rises(host, *names: str):
    """A function that returns by how much counters of the kernel rose since."""

    def read():
        lines = (line.split() for line in host.run("nstat -asz").stdout.splitlines()[1:])
        return {line[0]: int(line[1]) for line in lines if line and line[0] in names}

    before = read()
    return lambda: {name: value - before[name] for name, value in read().items()}


class Connection:
    def __init__(self, client_host, server_host, address: str):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with server_host.socket(family, socket.SOCK_STREAM) as listener:
            listener.bind((address, 0))
            listener.listen()
            self.client = client_host.socket(family, socket.SOCK_STREAM)
            self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.client.connect((address, listener.getsockname()[1]))
            self.server, _ = listener.accept()
        self.server.settimeout(PATIENCE)

    def request(self, size: int) -> None:
        """Returns when `size` bytes have arrived as they were."""
        octets = random.randbytes(size)
        sending = threading.Thread(target=self.client.sendall, args=(octets,), daemon=True)
        sending.start()
        arrived, digest = 0, hashlib.sha256()
        while arrived < size and (part := self.server.recv(min(size - arrived, 1 << 20))):
            arrived += len(part)
            digest.update(part)
        sending.join(PATIENCE)
        assert digest.digest() == hashlib.sha256(octets).digest()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close(), self.server.close()


def site(lab, mtu: int, pods: int, *, options: str = "", through=(), family: int = 6, features: str = ""):
    """(pod of a, pod of b, its address, b, b's tund)"""
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"}, mtu=mtu)
    for host, port in ((a, "to-a"), (b, "to-b")):
        merge(host, lab.namespaces[0], port)
        if features:
            host.run(f"ethtool -K eth0 {features}")
    tunds = []
    for host, remote in ((a, "10.0.0.2"), (b, "10.0.0.1")):
        kind = DOMAIN if family == 6 else f"--remote {remote} --mode any"
        tunds.append(lab.tund(host, f"{kind} {options}", through=through))
    (sender, source), (receiver, address) = pod(lab, a, 1, pods, family), pod(lab, b, 2, pods, family)
    if family == 4:
        a.ip(f"route add {address}/32 dev tund0")
        b.ip(f"route add {source}/32 dev tund0")
    return sender, receiver, address, b, tunds[1]


#: MTU of the underlay, of the pods' links, and bytes that make several segments of the second, within the first.
NARROW_BEHIND = [(9000, 1500, 6000), (1500, 1280, 1300)]


@pytest.mark.parametrize("through", [(), WITHOUT_NOTES], ids=["notes", "no notes"])
@pytest.mark.parametrize("options", ["", "--no-gro"])
@pytest.mark.parametrize("family", [6, 4], ids=["IPv6", "IPv4"])
@pytest.mark.parametrize("mtu, pods, size", NARROW_BEHIND)
def test_merged_tcp_passes_a_narrower_link_behind(lab, mtu, pods, size, family, options, through):
    """Within the TUN's MTU it went on as one packet, was too long for the link, and its source was told to send what it sent."""
    sender, receiver, address, b, _ = site(lab, mtu, pods, options=options, through=through, family=family)
    arriving = lab.packet_socket(b, "eth0")
    with Connection(sender, receiver, address) as connection:
        rise = rises(sender, "Icmp6InPktTooBigs", "IcmpInDestUnreachs", "TcpRetransSegs")
        for _ in range(20):
            connection.request(size)
        connection.request(1 << 20)
        seen = rise()
        # A busy machine makes TCP send some dozens again; the fault, 400 and more.
        assert seen.pop("TcpRetransSegs") < 80 and not any(seen.values()), seen
    merged = [packet for packet in arriving.drain() if packet[9] in (4, 41) and len(packet) > pods + 20]
    assert any(len(packet) <= mtu for packet in merged), "else this shows nothing"


def test_lists_of_segments_arrive(lab):
    """rx-gro-list keeps the first segment's finished checksum, and the others' headers away from the raw socket."""
    sender, receiver, address, b, _ = site(lab, 1500, 1280, features="rx-gro-list on")
    arriving = lab.packet_socket(b, "eth0")
    with Connection(sender, receiver, address) as connection:
        sent_again = rises(sender, "TcpRetransSegs")
        for size in (1300, 5000, 4 << 20):
            connection.request(size)
        # Of 3,400 segments. The fault made it 4,500; a busy machine, 68 at most.
        assert sent_again()["TcpRetransSegs"] < 340
    assert max(map(len, arriving.drain())) > 3000, "else this shows nothing"


def test_without_notes_each_interface_that_merges_untold_is_named(lab):
    a = lab.namespace("a")
    b = lab.namespace("b")
    for name in ("eth0", "eth1", "eth2", "eth3"):
        lab.veth(a, name, b, name)
    a.ip("addr add 10.0.0.1/8 dev eth0", "link set eth3 down")
    a.run("ethtool -K eth1 rx-gro-list on rx-udp-gro-forwarding on")
    a.run("ethtool -K eth0 rx-gro-list on")
    a.run("ethtool -K eth3 rx-gro-list on")
    tund = lab.tund(a, DOMAIN, through=WITHOUT_NOTES)
    warnings = [line for line in tund.err if "ethtool" in line]
    assert len(warnings) == 2
    assert any("ethtool -K eth0 rx-gro-list off" in line for line in warnings)
    assert any("ethtool -K eth1 rx-gro-list off rx-udp-gro-forwarding off" in line for line in warnings)
    tund.stop()
    assert not any("ethtool" in line for line in lab.tund(a, DOMAIN).err), "with notes nothing is wrong with it"


# MARK: A worker that gets no CPU


def pieces(receiver, timeout: float = 1) -> list[bytes]:
    """The datagrams that a socket with UDP_GRO gets, until there has been none for a while."""
    arrived = []
    receiver.settimeout(timeout)
    with contextlib.suppress(TimeoutError):
        while True:
            octets, ancillary, *_ = receiver.recvmsg(1 << 16, 64)
            # The kernel says of how many bytes each one was that it merged for this socket.
            [step] = [struct.unpack("i", data)[0] for *_, data in ancillary] or [max(1, len(octets))]
            arrived += [octets[start : start + step] for start in range(0, len(octets), step)]
    return arrived


@contextlib.contextmanager
def stopped(tund):
    tund.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        tund.signal(signal.SIGCONT)


@contextlib.contextmanager
def starved(tund):
    """The worker stands still while the control thread goes on (ptrace(2))."""
    [worker] = [int(thread.name) for thread in tund.threads() if "worker" in (thread / "comm").read_text()]
    seize, interrupt, detach, wait_for_threads = 0x4206, 0x4207, 17, 0x40000000
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long] * 4
    assert ptrace(seize, worker, 0, 0) == ptrace(interrupt, worker, 0, 0) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(worker, wait_for_threads)
    try:
        yield
    finally:
        ptrace(detach, worker, 0, 0)


@pytest.mark.parametrize("without_cpu", [stopped, starved], ids=["tund", "its worker"])
@pytest.mark.parametrize(
    "bursts, per_burst, size", [(1, 100, 400), (50, 3, 400), (3000, 40, 30)], ids=["one", "some", "a flood"]
)
def test_datagrams_wait_for_a_cpu_as_they_were(lab, bursts, per_burst, size, without_cpu):
    """However long: their notes wait as well. What has none by then is dropped with a reason, and nothing is joined."""
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    lab.tund(a, DOMAIN)
    merge(b, lab.namespaces[0], "to-b")
    tund = lab.tund(b, f"{DOMAIN} --workers 1")
    assert a.ping(B), "the worker is at work"
    arriving = lab.packet_socket(b, "eth0")
    sender, receiver = (host.socket(socket.AF_INET6, socket.SOCK_DGRAM) for host in (a, b))
    with sender, receiver:
        receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        receiver.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        receiver.bind((B, 0))
        sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size)
        sender.connect(receiver.getsockname()[:2])
        sent = [
            [struct.pack("!II", burst, number) + bytes(size - 8) for number in range(per_burst)] for burst in range(bursts)
        ]
        with without_cpu(tund):
            for burst in sent[: bursts // 2 + 1]:
                sender.send(b"".join(burst))
            time.sleep(3.5)
            for burst in sent[bursts // 2 + 1 :]:
                sender.send(b"".join(burst))
        arrived = pieces(receiver)
        expected = {datagram for burst in sent for datagram in burst}
        assert set(arrived) <= expected and len(set(arrived)) == len(arrived), "each as it was, none twice"
        counters = tund.counters()
        if bursts < 3000:
            assert len(arrived) == len(expected) and not counters["downlink.unfinished-oversized"]
        # And afterwards all is well again.
        last = [b"\xee" * size for _ in range(20)]
        time.sleep(1.2)
        for _ in range(3):
            sender.send(b"".join(last))
            assert pieces(receiver, timeout=0.5) == last
    assert max(map(len, arriving.drain())) > 2 * size, "else this shows nothing"


def test_a_tun_that_was_down_gets_merged_packets_again(lab):
    """Under load, some frame or other finds it down (EIO); that says nothing about merging."""
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    for host, options in ((a, DOMAIN), (b, f"{DOMAIN} --workers 1")):
        lab.tund(host, options)
    tund = lab.processes[-1]

    def merged(size: int) -> int:
        before = tund.counters()["offload.merged"]
        with Connection(a, b, B) as connection:
            connection.request(size)
        return tund.counters()["offload.merged"] - before

    assert merged(8 << 20)
    # On a busy machine tund may sleep through a TUN that is down for so short.
    for _ in range(16):
        server = lab.process(b, "iperf3 --server --one-off --forceflush")
        server.wait_until(lambda: any("listening" in line for line in server.out), "iperf3 listening")
        client = lab.process(a, f"iperf3 --client {B} --time 1")
        for _ in range(6):
            time.sleep(0.1)
            b.ip("link set tund0 down", "link set tund0 up")
        client.wait(), server.kill()
        assert merged(8 << 20)
        if tund.counters()["tun-write.EIO"]:
            break
    else:
        assert False, "this shows nothing: no frame found the TUN down"
