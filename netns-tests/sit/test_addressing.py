"""The addresses that only some sit interfaces know, against kernel sit: ISATAP and IPv4-compatible ones.

    a 10.0.0.1, tund --------- b 10.0.0.2, sit; 2001:db8:77::1 on lo
"""

import pytest

BEHIND_B = "2001:db8:77::1"


@pytest.fixture
def hosts(lab):
    a, b = lab.underlay({"a": "10.0.0.1/8", "b": "10.0.0.2/8"})
    b.ip(f"addr add {BEHIND_B}/128 dev lo")
    return a, b


def test_isatap(hosts, lab):
    """On the link by both kinds of addresses, and through b as a potential router."""
    a, b = hosts
    b.ip("tunnel add isatap0 mode isatap local 10.0.0.2 ttl 64", "link set isatap0 up",
         "addr add 2001:db8:5e::5efe:10.0.0.2/64 dev isatap0 nodad")
    lab.tund(a, "--isatap --isatap-prefix 2001:db8:5e::/64 --prl 10.0.0.2 --default-route")
    assert a.ping("2001:db8:5e::5efe:10.0.0.2", count=3) and b.ping("2001:db8:5e::5efe:10.0.0.1")
    assert a.ping("fe80::5efe:10.0.0.2%tund0") and b.ping("fe80::5efe:10.0.0.1%isatap0")
    assert a.ping(BEHIND_B)


def test_ipv4_compatible(hosts, lab):
    """sit gives itself ::10.0.0.2/96 when it comes up."""
    a, b = hosts
    b.ip("link add sit1 type sit mode ip6ip local 10.0.0.2 ttl 64", "link set sit1 up")
    lab.tund(a, "--v4-compatible")
    assert a.ping("::10.0.0.2", count=3) and b.ping("::10.0.0.1")
