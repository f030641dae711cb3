"""A tunnel between two hosts without a domain: --remote.

    a 10.0.0.1                              b 10.0.0.2
    tund0 fe80::a00:1/64                    tund0 fe80::a00:2/64
          2001:db8:a::1 on lo                     2001:db8:b::1 on lo
    eth0 ----------------- switch ----------------- eth0
"""

import pytest

import traffic

A, B = "2001:db8:a::1", "2001:db8:b::1"


@pytest.fixture(scope="module")
def hosts(shared_lab):
    a, b = shared_lab.underlay({"a": "10.0.0.1/24", "b": "10.0.0.2/24"})
    shared_lab.tund(a, "--remote 10.0.0.2 --default-route")
    shared_lab.tund(b, "--remote 10.0.0.1 --default-route")
    a.ip(f"addr add {A}/128 dev lo")
    b.ip(f"addr add {B}/128 dev lo")
    return a, b


@pytest.fixture(params=["a to b", "b to a"])
def direction(hosts, request):
    """(sender, receiver, the receiver's global and link-local address)"""
    a, b = hosts
    return (a, b, B, "fe80::a00:2") if request.param == "a to b" else (b, a, A, "fe80::a00:1")


def test_link_local(direction):
    sender, _, _, address = direction
    assert sender.ping(f"{address}%tund0", count=3)


def test_all_nodes(direction):
    """ff02::1 is answered by the host at the other end, from its link-local address. (-L: not by ourselves.)"""
    sender, _, _, address = direction
    answer = sender.run("ping -6 -n -L -c 1 -W 3 ff02::1%tund0", check=False)
    assert f"from {address}%tund0" in answer.stdout, answer.stdout


def test_any_inner_address(direction):
    sender, receiver, address, _ = direction
    assert sender.ping(address, count=3)
    assert traffic.tcp(sender, receiver, address)
    assert traffic.udp(sender, receiver, address, count=100)
