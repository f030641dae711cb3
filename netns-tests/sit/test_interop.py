"""tund at one end, kernel sit at the other: each by its own rules for what it sends and takes.

    tund host 10.0.0.1                     sit host 10.0.0.2
    tund0 ...                              sit1 ...
    eth0 ------------- one wire, or routers ------------- eth0

All of it over veth pairs with every offload that the kernel turns on by itself: sit's packets come as super-packets.
"""

import json

import pytest

import traffic
from lab import Lab
from twins import silence_tunnel4

#: tund's options, sit's options (`ip link add sit1 type sit`), and the addresses of the two.
TUNNELS = {
    "6rd": ("--6rd-prefix fd00::/32", "6rd-prefix fd00::/32 6rd-relay_prefix 0.0.0.0/0", "fd00:0:a00:1::1/32",
            "fd00:0:a00:2::1/32"),
    "6rd, m=8": ("--6rd-prefix fd12:3456:7800::/40 --6rd-relay-prefix 10.0.0.0/8",
                 "6rd-prefix fd12:3456:7800::/40 6rd-relay_prefix 10.0.0.0/8", "fd12:3456:7800:1::1/40",
                 "fd12:3456:7800:2::1/40"),
    "6to4": ("", "", "2002:a00:1::1/16", "2002:a00:2::1/16"),
    "point to point": ("--remote 10.0.0.2 --address 2001:db8::1/64", "remote 10.0.0.1", "2001:db8::1/64", "2001:db8::2/64"),
}


def make_ends(lab: Lab, tund_host, sit_host, tunnel: str):
    """Returns tund, its address and sit's."""
    for_tund, for_sit, here, there = TUNNELS[tunnel]
    sit_host.ip(f"link add sit1 type sit local 10.0.0.2 ttl 64 mode ip6ip {for_sit}", "link set sit1 up",
                f"addr add {there} dev sit1 nodad")
    # tunnel4 came with sit, and answers what no sit device of this host takes; sit's host ignores these answers.
    tund = lab.tund(tund_host, f"--local 10.0.0.1 {for_tund}")
    return tund, here.split("/")[0], there.split("/")[0]


class Ends:
    def __init__(self, lab: Lab, tunnel: str):
        self.lab = lab
        self.near, self.far = lab.underlay({"tund": "10.0.0.1/24", "sit": "10.0.0.2/24"})
        self.tund, self.here, self.there = make_ends(lab, self.near, self.far, tunnel)


@pytest.fixture(scope="module", params=TUNNELS)
def ends(request, binary):
    with Lab() as lab:
        yield Ends(lab, request.param)


@pytest.fixture(params=["tund to sit", "sit to tund"])
def direction(request, ends):
    """(sender, receiver, the receiver's address)"""
    return (ends.near, ends.far, ends.there) if request.param == "tund to sit" else (ends.far, ends.near, ends.here)


@pytest.mark.parametrize("size", [0, 1432, 1433, 9000], ids=lambda size: f"{size} bytes")
def test_ping(direction, size):
    sender, _, address = direction
    assert sender.ping(address, count=2, size=size)


def test_tcp(direction):
    assert traffic.tcp(*direction, size=2 << 20)


def test_udp(direction):
    assert traffic.udp(*direction, count=100)


def test_iperf3(ends, direction):
    """A flood of datagrams: most arrive, and none is damaged."""
    sender, receiver, address = direction
    server = ends.lab.process(receiver, "iperf3 --server --one-off --forceflush")
    server.wait_until(lambda: any("listening" in line for line in server.out), "line with 'listening'")
    done = sender.run(f"iperf3 --client {address} --udp --bitrate 5M --length 1200 --time 1 --json", timeout=60)
    result = json.loads(done.stdout)["end"]["sum"]
    assert result["packets"] > 100 and result["lost_percent"] < 5


@pytest.mark.parametrize("ecn", [0, 1, 2, 3])
@pytest.mark.parametrize("end", ["tund to sit", "sit to tund"])
def test_ecn_end_to_end(ends, end, ecn):
    """What is sent with ECT or CE arrives with it: no mark is lost on an unmarked path, none is made up."""
    sender, receiver, address = (
        (ends.near, ends.far, ends.there) if end == "tund to sit" else (ends.far, ends.near, ends.here))
    device = "sit1" if receiver is ends.far else "tund0"
    tap = ends.lab.packet_socket(receiver, device)
    assert sender.ping(address, options=f"-Q {ecn}")
    request = next(packet for packet in tap.drain() if packet[6] == 58 and packet[40] == 128)
    tap.close()
    assert request[1] >> 4 & 3 == ecn


def test_no_refusals(ends):
    """None of this was dropped by tund's source checks, though they are strict."""
    refused = {name: count for name, count in ends.tund.counters().items() if name.startswith("downlink.inner")}
    assert not refused


def test_link_local_and_multicast(binary):
    """Point to point, as over any link."""
    with Lab() as lab:
        ends = Ends(lab, "point to point")
        assert ends.near.ping("fe80::a00:2%tund0") and ends.far.ping("fe80::a00:1%sit1")
        answer = ends.far.run("ping -6 -n -L -c 1 -W 3 ff02::1%sit1", check=False)
        assert "from fe80::a00:1%sit1" in answer.stdout, answer.stdout


@pytest.mark.parametrize("mode", ["ipip", "any"])
def test_ipv4_inside(binary, mode):
    with Lab() as lab:
        near, far = lab.underlay({"tund": "10.0.0.1/24", "sit": "10.0.0.2/24"})
        # What tunnel4 answers sit would hear, point to point.
        silence_tunnel4(near)
        far.ip(f"link add sit1 type sit mode {mode} local 10.0.0.2 remote 10.0.0.1 ttl 64", "link set sit1 up",
               "addr add 172.16.0.2/30 dev sit1", "addr add 2001:db8::2/64 dev sit1 nodad")
        lab.tund(near, f"--local 10.0.0.1 --remote 10.0.0.2 --mode {mode}" + " --address 2001:db8::1/64" * (mode == "any"))
        near.ip("addr add 172.16.0.1/30 dev tund0")
        ends = [("172.16.0.1", "172.16.0.2")] + [("2001:db8::1", "2001:db8::2")] * (mode == "any")
        for here, there in ends:
            for sender, receiver, address in ((near, far, there), (far, near, here)):
                for size in (0, 1452, 1453, 4000):
                    assert sender.ping(address, size=size)
                assert traffic.tcp(sender, receiver, address, size=2 << 20)
                assert traffic.udp(sender, receiver, address, count=60)


@pytest.mark.parametrize("offloads", ["tx off tso off gso off gro off", "tso off gso off", "gro on"])
def test_offloads(binary, offloads):
    """Whatever the interfaces do with packets, the content arrives."""
    with Lab() as lab:
        ends = Ends(lab, "6rd")
        for host in (ends.near, ends.far):
            host.run(f"ethtool -K eth0 {offloads}")
        assert traffic.tcp(ends.near, ends.far, ends.there, size=2 << 20)
        assert traffic.tcp(ends.far, ends.near, ends.here, size=2 << 20)
        assert traffic.udp(ends.near, ends.far, ends.there, count=60)
        assert traffic.udp(ends.far, ends.near, ends.here, count=60)


def routed(lab: Lab, mtu: int, link_mtu: int):
    """tund host - router - narrow link - router - sit host"""
    near, r, s, far = (lab.namespace(name) for name in ("tund", "r", "s", "sit"))
    lab.veth(near, "eth0", r, "near", mtu=mtu)
    lab.veth(r, "narrow", s, "narrow", mtu=link_mtu)
    lab.veth(s, "far", far, "eth0", mtu=mtu)
    near.ip("addr add 10.0.0.1/32 dev eth0", "route add 10.0.1.9 dev eth0", "route add default via 10.0.1.9 src 10.0.0.1")
    far.ip("addr add 10.0.0.2/32 dev eth0", "route add 10.0.2.9 dev eth0", "route add default via 10.0.2.9 src 10.0.0.2")
    r.ip("addr add 10.0.1.9/32 dev near", "route add 10.0.0.1 dev near", "addr add 10.0.9.1/24 dev narrow",
         "route add default via 10.0.9.2")
    s.ip("addr add 10.0.2.9/32 dev far", "route add 10.0.0.2 dev far", "addr add 10.0.9.2/24 dev narrow",
         "route add default via 10.0.9.1")
    for router in (r, s):
        router.sysctl(ipv4__ip_forward=1)
    return near, far


@pytest.mark.parametrize("tunnel", ["6rd", "point to point"])
def test_tcp_through_a_narrow_hop(binary, tunnel):
    """A hop of 1400 bytes in the path: the sending end learns of it by ICMPv4, and tells the source."""
    with Lab() as lab:
        near, far = routed(lab, 1500, 1400)
        _, here, there = make_ends(lab, near, far, tunnel)
        assert traffic.tcp(near, far, there, size=1 << 20)
        assert traffic.tcp(far, near, here, size=1 << 20)


def test_path_mtu_discovery(binary):
    """The same by echo requests, which say what was learned."""
    with Lab() as lab:
        near, far = routed(lab, 1500, 1400)
        _, here, there = make_ends(lab, near, far, "point to point")
        for sender, address in ((near, there), (far, here)):
            # The first ones teach the path's MTU to both ends, to each by its own losses.
            sender.ping(address, count=5, size=1400)
            assert sender.ping(address, size=1400)
            assert "mtu 1380" in sender.show(f"-6 route get {address}"), sender.show(f"-6 route get {address}")


def test_numbers_of_the_kernels_pmtu_selftest(binary):
    """tools/testing/selftests/net/pmtu.sh, sit over a routed path: a link of 4000 bytes makes an exception of 3980."""
    with Lab() as lab:
        near, far = routed(lab, 5000, 4000)
        _, here, there = make_ends(lab, near, far, "point to point")
        for host, device in ((near, "tund0"), (far, "sit1")):
            host.ip(f"link set {device} mtu 4980")
        for sender, address in ((near, there), (far, here)):
            sender.ping(address, count=2, size=4200)
            assert "mtu 3980" in sender.show(f"-6 route get {address}"), sender.show(f"-6 route get {address}")
