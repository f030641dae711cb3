"""ICMPv4 errors about tunnel packets, failing routes, and what the inner source hears of them.

    far end, any router or host ------ eth0 host, tund0 --- packet socket
         sends ICMPv4 errors                   sees the ICMPv6 errors
"""

import struct
import time

import pytest
from scapy.utils import checksum

from packets import DOMAIN, HERE, IP, PEER, THERE, UDP, IPv6, Raw, in_ipv4, inner, random
from wire import HostOnAWire, show

ROUTER = "10.99.0.1"
POD = "fd12:3456:7800:1::100"
#: Another peer, so that what a test is about and its end mark have limits of their own.
OTHER = "fd12:3456:7800:3::1"
REMOTE = f"--remote {PEER}"


@pytest.fixture(scope="module")
def host_with(one_at_a_time):
    return one_at_a_time(lambda lab, options: HostOnAWire(lab, options, **(
        {"here": "fe80::a00:1", "there": "fe80::a00:2"} if "--remote" in options else {})))


@pytest.fixture
def host(host_with):
    return host_with(DOMAIN)


def icmp(kind: int, code: int, quote: bytes, *, extension: bytes = b"", length: int = 0, rest: bytes = b"") -> IP:
    """An error from a router. With `extension`, the quote is padded to `length` (RFC 4884 section 4.1, in bytes)."""
    if extension:
        quote = quote[:length].ljust(length, b"\0") + extension
    message = bytes([kind, code, 0, 0]) + (rest or bytes([0, length // 4 if extension else 0, 0, 0])) + quote
    message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
    return IP(src=ROUTER, dst="10.0.0.1", proto=1) / Raw(message)


def sent_by(host, packet) -> bytes:
    """The tunnel packet that an inner packet became."""
    [seen] = host.observe(from_host=[packet]).to_wire
    return seen


def is_error(packet: bytes) -> bool:
    return packet[6] == 58 and packet[40] < 128


def answers(host, *errors: IP, mark: bytes = b"") -> list[bytes]:
    """What the host's side hears of errors. The last one is a mark that is always answered."""
    host.tun.drain()
    mark = mark or sent_by(host, inner(POD, OTHER, b"end mark"))
    host.wire.send(*errors, icmp(3, 1, mark))
    heard, last = host.tun.receive_until(lambda packet: is_error(packet) and packet.endswith(mark[20:]))
    assert last, f"the mark is not answered, only\n{show(heard)}\n{host.tund.transcript()}"
    return [packet for packet in heard if is_error(packet)]


def check(answer: bytes, source: str, destination: str, kind: int, code: int, rest: int = 0) -> bytes:
    """Its headers and checksum; returns the quote."""
    packet = IPv6(answer)
    assert (packet.src, packet.dst, packet.nh, packet.hlim) == (source, destination, 58, 64)
    assert packet.plen == len(answer) - 40 and len(answer) <= 1280
    assert (answer[40], answer[41], int.from_bytes(answer[44:48], "big")) == (kind, code, rest)
    pseudo = answer[8:40] + struct.pack("!II", len(answer) - 40, 58)
    assert checksum(pseudo + answer[40:]) == 0
    return answer[48:]


#: {ICMPv4 (type, code): ICMPv6 (type, code)}; the rest is not for the inner source.
TRANSLATED = {(3, code): (1, 3) for code in range(16) if code not in (4, 5)} | {(11, 0): (3, 0)}
UNTRANSLATED = [(3, 4), (3, 5), (11, 1), (12, 0), (4, 0), (5, 0), (5, 1), (0, 0), (8, 0), (42, 0)]


@pytest.mark.parametrize("error", TRANSLATED, ids=lambda error: "type %d code %d" % error)
def test_translated(host, error):
    packet = inner(POD, THERE, bytes(100))
    [answer] = answers(host, icmp(*error, sent_by(host, packet)))
    assert check(answer, HERE, POD, *TRANSLATED[error]) == bytes(packet)


def test_untranslated(host):
    sent = sent_by(host, inner(POD, THERE, bytes(100)))
    # The MTU that 3/4 reports is none the kernel would take note of.
    assert not answers(host, *(icmp(*error, sent, rest=b"\0\0\xff\xff") for error in UNTRANSLATED))


def test_a_long_quote_is_cut(host):
    """No ICMPv6 error is longer than 1280 bytes (RFC 4443 section 2.4 c)."""
    packet = inner(POD, THERE, bytes(1400))
    [answer] = answers(host, icmp(3, 1, sent_by(host, packet)))
    assert len(answer) == 1280 and check(answer, HERE, POD, 1, 3) == bytes(packet)[:1232]


@pytest.mark.parametrize("length", [48, 49, 100])
def test_a_short_quote(host, length):
    """Of the inner packet, its header and 8 bytes are enough."""
    packet = inner(POD, THERE, bytes(100))
    [answer] = answers(host, icmp(3, 1, sent_by(host, packet)[:20 + length]))
    assert check(answer, HERE, POD, 1, 3) == bytes(packet)[:length]
    assert not answers(host, icmp(3, 1, sent_by(host, packet)[:20 + 47]))


# An MPLS label stack (RFC 4950) as extension structure: version 2, checksum, one object.
OBJECT = struct.pack("!HBBI", 8, 1, 1, 0x00019_1_40)
EXTENSION = b"\x20\0" + checksum(b"\x20\0\0\0" + OBJECT).to_bytes(2, "big") + OBJECT


@pytest.mark.parametrize("error, translated", [((3, 1), (1, 3)), ((11, 0), (3, 0))])
@pytest.mark.parametrize("quoted, length, padded", [(128, 128, 128), (60, 128, 128), (144, 144, 144), (148, 148, 152)])
def test_extensions_are_kept(host, error, translated, quoted, length, padded):
    """RFC 4884: in ICMPv6 the length counts 8 bytes and stands in the first byte; the quote is padded as sit pads it."""
    packet = inner(POD, THERE, bytes(range(200)))
    quote = sent_by(host, packet)[:20 + 48 if quoted == 60 else quoted]
    [answer] = answers(host, icmp(*error, quote, extension=EXTENSION, length=length))
    body = check(answer, HERE, POD, *translated, rest=padded // 8 << 24)
    if quoted != 60:
        assert body[:padded] == bytes(packet)[:quoted - 20].ljust(padded, b"\0")
    assert len(body) == padded + len(EXTENSION) and body[padded:] == EXTENSION


def test_a_bad_extension_is_left_out(host):
    packet = inner(POD, THERE, bytes(range(200)))
    bad = EXTENSION[:2] + b"\x12\x34" + EXTENSION[4:]
    [answer] = answers(host, icmp(11, 0, sent_by(host, packet)[:128], extension=bad, length=128))
    assert check(answer, HERE, POD, 3, 0).startswith(bytes(packet)[:108])


def changed(packet: bytes, **fields) -> bytes:
    outer = IP(packet)
    for name, value in fields.items():
        setattr(outer, name, value)
    del outer.chksum
    return bytes(outer)


def test_forged_quotes_get_nothing(host):
    """They were never sent from here, or not there."""
    whole = inner(POD, THERE, bytes(100))
    sent = sent_by(host, whole)
    forged = {
        "another outer source": changed(sent, src="10.0.0.7"),
        "another outer destination": changed(sent, dst="10.0.0.3"),
        "an inner destination elsewhere": bytes(in_ipv4(inner(POD, OTHER, bytes(100)), "10.0.0.1", PEER)),
        "an inner destination outside": bytes(in_ipv4(inner(POD, "2001:db8::1", bytes(100)), "10.0.0.1", PEER)),
        "a foreign inner source": bytes(in_ipv4(inner(OTHER, THERE, bytes(100)), "10.0.0.1", PEER)),
        "an inner source outside": bytes(in_ipv4(inner("2001:db8::1", THERE, bytes(100)), "10.0.0.1", PEER)),
        "no inner source": bytes(in_ipv4(inner("::", THERE, bytes(100)), "10.0.0.1", PEER)),
        "not IPv6": sent[:20] + b"\x45" + sent[21:],
        "a later fragment": changed(sent, frag=100),
    }
    assert not answers(host, *(icmp(3, 1, quote) for quote in forged.values()))


def test_no_error_about_an_error(host):
    """RFC 4443 section 2.4 (e)."""
    about = bytes(inner(THERE, POD, bytes(20)))
    error, redirect, report = (
        inner(POD, THERE, Raw(bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + about), nh=58) for kind in (1, 137, 200)
    )
    assert not answers(host, *(icmp(3, 1, sent_by(host, packet)) for packet in (error, redirect)))
    [answer] = answers(host, icmp(3, 1, sent_by(host, report)))
    assert check(answer, HERE, POD, 1, 3) == bytes(report)


def test_random_quotes(host):
    """Hostile ones: nothing is sent for them, and nothing breaks."""
    source = random.Random(7)
    sent = sent_by(host, inner(POD, THERE, bytes(100)))
    for _ in range(20):
        quotes = []
        for _ in range(20):
            quote = bytearray(sent[:source.randrange(28, len(sent))])
            for _ in range(source.randrange(1, 8)):
                quote[source.randrange(len(quote))] = source.randrange(256)
            quotes.append(bytes(quote))
        host.wire.send(*(icmp(source.choice([3, 11]), 0, quote, extension=source.randbytes(source.randrange(12)),
                              length=source.choice([0, 28, 128, 132, 1020])) for quote in quotes))  # fmt: skip
    host.settle(tries=3)


def test_no_more_than_the_limit(host_with):
    """10 a second for a peer, after 60 at once; a flood for one of them takes nothing from another."""
    host = host_with(f"{DOMAIN} --ttl 63")
    error = icmp(3, 1, sent_by(host, inner(POD, THERE, bytes(100))))
    mark = sent_by(host, inner(POD, OTHER, b"end mark"))
    started, heard = time.monotonic(), 0
    for _ in range(20):
        heard += len(answers(host, *[error] * 100, mark=mark))
    assert 60 <= heard <= 60 + 10 * (time.monotonic() - started) + 1
    counters = host.tund.counters()
    assert counters["answer.unreachable"] == heard + 20
    assert counters["answer.held-back"] > 1000


class TestPointToPoint:
    """--remote: a quote may be too short to show the inner source. Then the sources of the next packets are told.

    This end has a link-local address only, so the errors come from where the packets were going."""

    SOURCE, DESTINATION = "2001:db8:a::1", "2001:db8:b::1"

    @pytest.fixture(params=[REMOTE, f"{REMOTE} --ttl inherit"])
    def host(self, host_with, request):
        return host_with(request.param)

    def packet(self, payload: bytes = bytes(100), **fields):
        return inner(self.SOURCE, self.DESTINATION, payload, **fields)

    @pytest.mark.parametrize("error", [(3, 1), (11, 0)])
    def test_translated(self, host, error):
        packet = self.packet()
        host.tun.drain()
        host.wire.send(icmp(*error, sent_by(host, packet)))
        _, answer = host.tun.receive_until(is_error)
        assert check(answer, self.DESTINATION, self.SOURCE, *TRANSLATED[error]) == bytes(packet)

    @pytest.mark.parametrize("length", [8, 40, 47])
    def test_soft_errors(self, host, length):
        """Each is told to the source of one of the next packets, which are sent all the same."""
        sent = sent_by(host, self.packet())
        before = host.tund.counters()["icmp.3/1"]
        host.wire.send(*[icmp(3, 1, sent[:20 + length])] * 3)
        host.tund.counters_once(lambda counters: counters["icmp.3/1"] == before + 3)
        host.tun.drain()
        packets = [self.packet(bytes([number] * 100)) for number in range(5)]
        seen = host.observe(from_host=packets)
        assert [packet[20:] for packet in seen.to_wire] == [bytes(packet) for packet in packets]
        heard = [packet for packet in seen.to_host if is_error(packet)]
        assert [check(packet, self.DESTINATION, self.SOURCE, 1, 3) for packet in heard] == [bytes(packet) for packet in packets[:3]]

    def test_the_own_hop_limit_is_no_soft_error(self, host, request):
        sent = sent_by(host, self.packet())
        host.wire.send(icmp(11, 0, sent[:28]))
        host.tund.counters_once(lambda counters: counters["icmp.11/0"])
        seen = host.observe(from_host=[self.packet()])
        heard = [packet for packet in seen.to_host if is_error(packet)]
        assert len(heard) == (0 if "inherit" in " ".join(host.tund.argv) else 1)

    def test_nothing_for_another_host(self, host):
        sent = sent_by(host, self.packet())
        before = host.tund.counters()
        host.wire.send(*(icmp(3, 1, quote) for quote in (changed(sent, dst="10.0.0.3"), changed(sent[:28], dst="10.0.0.3"))))
        # The mark is heard and means nothing.
        host.wire.send(icmp(3, 5, sent))
        counters = host.tund.counters_once(lambda counters: counters["icmp.3/5"] > before["icmp.3/5"])
        assert counters["icmp.3/1"] == before["icmp.3/1"]
        seen = host.observe(from_host=[self.packet()])
        assert not [packet for packet in seen.to_host if is_error(packet)]

    def test_multicast_is_not_answered(self, host):
        sent = sent_by(host, inner("fe80::a00:1", "ff02::2", bytes(20)))
        host.tun.drain()
        host.wire.send(icmp(3, 1, sent), icmp(3, 1, sent_by(host, self.packet(b"end mark"))))
        heard, last = host.tun.receive_until(lambda packet: is_error(packet) and packet.endswith(b"end mark"))
        assert last and not [packet for packet in heard if is_error(packet)]


def test_the_configured_address_is_the_source(lab):
    host = HostOnAWire(lab, f"{REMOTE} --address 2001:db8:a::2/64", here="fe80::a00:1", there="fe80::a00:2")
    host.host.ip(f"route add unreachable {PEER}")
    packet = inner("2001:db8:a::1", "2001:db8:b::1")
    host.tun.send(packet)
    _, answer = host.tun.receive_until(is_error)
    assert check(answer, "2001:db8:a::2", "2001:db8:a::1", 1, 3) == bytes(packet)


# Routes


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
def test_an_unreachable_peer(host, kind):
    host.host.ip(f"route add {kind} {PEER}")
    try:
        said = host.host.run(f"ping -6 -n -c 1 -W 3 {THERE}", check=False).stdout
        assert f"From {HERE} icmp_seq=1 Destination unreachable: Address unreachable" in said
    finally:
        host.host.ip(f"route del {kind} {PEER}")


def test_no_route(lab):
    host = HostOnAWire(lab)
    host.host.ip("route del default", "route del 10.0.0.0/8 dev eth0")
    said = host.host.run(f"ping -6 -n -c 1 -W 3 {THERE}", check=False).stdout
    assert f"From {HERE} icmp_seq=1 Destination unreachable: Address unreachable" in said


# Path MTU; the kernel knows it from routes and from ICMPv4 (test_path_mtu.py).


@pytest.fixture
def path(host_with):
    """path(mtu, options): a host whose route to the peer takes packets of that length."""
    made = []

    def narrow(mtu: int, options: str = DOMAIN):
        host = host_with(options)
        host.host.ip(f"route add {PEER} dev eth0 mtu {mtu}")
        made.append(host)
        return host

    yield narrow
    for host in made:
        host.host.ip(f"route del {PEER}")


@pytest.mark.parametrize("mtu, told", [(1499, 1479), (1400, 1380), (1301, 1281), (1300, 1280), (1290, 1280), (576, 1280)])
def test_too_big(path, mtu, told):
    host = path(mtu)
    packet = inner(POD, THERE, bytes(1440))
    seen = host.observe(from_host=[packet])
    [answer] = [packet for packet in seen.to_host if is_error(packet)]
    assert check(answer, HERE, POD, 2, 0, rest=told) == bytes(packet)[:1232]
    assert not [packet for packet in seen.to_wire if packet[9] == 41] and seen.counters["uplink.too-big"] == 1
    # One that is as long as that goes.
    packet = inner(POD, THERE, bytes(told - 40))
    fragments = [IP(seen) for seen in host.observe(from_host=[packet]).to_wire]
    assert all(len(fragment) <= mtu for fragment in fragments)
    assert b"".join(bytes(fragment.payload) for fragment in fragments) == bytes(packet)
    whole = mtu >= 1300
    assert (len(fragments) == 1) == whole and all(("DF" in fragment.flags) == whole for fragment in fragments)


def test_too_big_is_said_about_multicast(path):
    """RFC 4443 section 2.4 (e.3)."""
    host = path(1400, REMOTE)
    packet = inner("2001:db8:a::1", "ff0e::1", bytes(1400))
    [answer] = [packet for packet in host.observe(from_host=[packet]).to_host if is_error(packet)]
    assert check(answer, "fe80::a00:1", "2001:db8:a::1", 2, 0, rest=1380) == bytes(packet)[:1232]


def test_a_path_too_narrow_for_anything(path):
    host = path(87)
    seen = host.observe(from_host=[inner(HERE, OTHER), inner(POD, THERE, bytes(100))])
    assert seen.counters["uplink.narrow-path"] == 1
    assert not [packet for packet in seen.to_host if is_error(packet)]


def test_without_path_mtu_discovery(path):
    host = path(1300, f"{DOMAIN} --no-pmtudisc")
    packet = inner(POD, THERE, bytes(1440))
    seen = host.observe(from_host=[packet])
    fragments = [IP(seen) for seen in seen.to_wire]
    assert not [packet for packet in seen.to_host if is_error(packet)]
    assert len(fragments) == 2 and b"".join(bytes(fragment.payload) for fragment in fragments) == bytes(packet)
    assert not any("DF" in fragment.flags for fragment in fragments)


def test_many_flows_learn_at_once(path):
    """Each of 100 sources needs its own Packet Too Big, from one burst."""
    host = path(1400, f"{DOMAIN} --ttl 62")
    sources = [f"fd12:3456:7800:1::{number:x}" for number in range(0x1000, 0x1064)]
    packets = [inner(source, THERE, UDP(sport=1, dport=2) / Raw(bytes(1392))) for source in sources]
    heard = [IPv6(packet).dst for packet in host.observe(from_host=packets).to_host if is_error(packet)]
    assert heard == sources
