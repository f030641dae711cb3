"""Two hosts, every option at its default.

    a                                     b
    tund0 2002:a00:1::1/16                tund0 2002:a00:2::1/16
    eth0 10.0.0.1/24 ------ switch ------ eth0 10.0.0.2/24
"""

import pytest

import traffic

A, B = "2002:a00:1::1", "2002:a00:2::1"


@pytest.fixture(scope="module")
def hosts(shared_lab):
    a, b = shared_lab.underlay({"a": "10.0.0.1/24", "b": "10.0.0.2/24"})
    return a, b, shared_lab.tund(a), shared_lab.tund(b)


@pytest.fixture(params=["a to b", "b to a"])
def direction(hosts, request):
    """(sender, receiver, the receiver's address)"""
    a, b, *_ = hosts
    return (a, b, B) if request.param == "a to b" else (b, a, A)


@pytest.mark.parametrize("size", [0, 56, 1232, 1432], ids=lambda size: f"{size} bytes")
def test_ping(direction, size):
    sender, _, address = direction
    assert sender.ping(address, count=3, size=size)


def test_tcp(direction):
    assert traffic.tcp(*direction, size=8 << 20)


def test_udp(direction):
    assert traffic.udp(*direction)


def test_tcp_both_ways_at_once(hosts):
    """Four connections in each direction share the tunnel; none of them gets bytes of another."""
    from concurrent.futures import ThreadPoolExecutor

    a, b, *_ = hosts
    with ThreadPoolExecutor(8) as pool:
        transfers = [pool.submit(traffic.tcp, *pair, size=1 << 20) for pair in [(a, b, B), (b, a, A)] * 4]
    assert all(transfer.result() for transfer in transfers)
