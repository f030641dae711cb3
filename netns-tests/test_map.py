"""`tund map`: the 6rd arithmetic in both directions, with vectors that others published.

    IPv4 address of a host  <->  the prefix that is delegated to it
"""

import pytest

import sixrd
from lab import run

#: (6rd prefix, relay prefix, IPv4 address, delegated prefix)
VECTORS = [
    # RFC 5969, 7.1.1: a customer edge and the border relay
    ("2001:db8::/32", "10.0.0.0/8", "10.100.100.1", "2001:db8:6464:100::/56"),
    ("2001:db8::/32", "10.0.0.0/8", "10.0.0.1", "2001:db8:0:100::/56"),
    # The Broadband Forum's data model for 6rd
    ("2001:db8::/32", "10.0.0.0/8", "10.100.200.2", "2001:db8:64c8:200::/56"),
    # Two providers: a prefix that ends within a byte, and one longer than 32 bits
    ("2a01:79c::/30", "0.0.0.0/0", "81.167.4.214", "2a01:79d:469c:1358::/62"),
    ("2a02:58:54::/46", "185.227.120.0/22", "185.227.123.123", "2a02:58:57:7b00::/56"),
    # VPP's tests of 6rd; 6to4 is the first of them
    ("2002::/16", "0.0.0.0/0", "172.16.2.2", "2002:ac10:202::/48"),
    ("2002::/16", "172.0.0.0/8", "172.16.2.2", "2002:1002:200::/40"),
    # A /64 for each host of a LAN
    ("fd00:db8:0:ab00::/56", "192.168.1.0/24", "192.168.1.155", "fd00:db8:0:ab9b::/64"),
    ("fd00:db8:0:ab00::/56", "192.168.1.0/24", "192.168.1.200", "fd00:db8:0:abc8::/64"),
    ("fd12:3456:7800::/40", "10.0.0.0/8", "10.1.2.3", "fd12:3456:7801:203::/64"),
    # The ends of both ranges
    ("2002::/16", "0.0.0.0/0", "255.255.255.255", "2002:ffff:ffff::/48"),
    ("fd00::/64", "10.1.2.3/32", "10.1.2.3", "fd00::/64"),
    ("fd00:0:0:fffe::/63", "10.1.2.2/31", "10.1.2.3", "fd00:0:0:ffff::/64"),
    ("fd00::/32", "0.0.0.0/0", "10.0.0.1", "fd00:0:a00:1::/64"),
    ("::/0", "0.0.0.0/0", "32.1.13.184", "2001:db8::/32"),
]


@pytest.fixture
def tund_map(binary):
    def call(prefix, relay_prefix, address="", **options):
        return run(f"{binary} map --6rd-prefix {prefix} --6rd-relay-prefix {relay_prefix} {address}", **options)

    return call


@pytest.mark.parametrize("prefix, relay_prefix, v4, delegated", VECTORS)
def test_ipv4_to_prefix(tund_map, prefix, relay_prefix, v4, delegated):
    assert tund_map(prefix, relay_prefix, v4).stdout.strip() == delegated
    assert str(sixrd.delegated(prefix, relay_prefix, v4)) == delegated


@pytest.mark.parametrize("prefix, relay_prefix, v4, delegated", VECTORS)
@pytest.mark.parametrize("position", [0, 1, -1], ids=["first", "::1", "last"])
def test_ipv6_to_host(tund_map, prefix, relay_prefix, v4, delegated, position):
    address = sixrd.IPv6Network(delegated)[position]
    assert tund_map(prefix, relay_prefix, address).stdout.strip() == v4


def test_the_default_domain_is_6to4(binary):
    assert run(f"{binary} map 192.0.2.4").stdout.strip() == "2002:c000:204::/48"
    assert run(f"{binary} map 2002:c000:204::7").stdout.strip() == "192.0.2.4"


@pytest.mark.parametrize("address", ["192.168.1.1", "2001:db9::1", "11.0.0.1"])
def test_an_address_outside_the_domain(tund_map, address):
    done = tund_map("2001:db8::/32", "10.0.0.0/8", address, check=False)
    assert done.returncode != 0 and not done.stdout and address in done.stderr


def test_without_an_address_this_hosts_own(lab, binary):
    host, _ = lab.underlay({"host": "10.0.0.1/8", "peer": "10.0.0.2/8"})
    assert host.run(f"{binary} map").stdout.strip() == "2002:a00:1::/48"
    domain = "--6rd-prefix 2001:db8::/32 --6rd-relay-prefix 10.0.0.0/8"
    assert host.run(f"{binary} map {domain}").stdout.strip() == "2001:db8:0:100::/56"
