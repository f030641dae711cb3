"""Three hosts in one 6rd domain: from every host to every other one, with nothing configured but the domain.

    a               b               c
    tund0           tund0           tund0
    eth0 --+------- eth0 --+------- eth0
           +--- switch ----+
"""

import json
from itertools import permutations

import pytest

import sixrd
import traffic
from lab import Lab

#: (prefix, relay prefix, underlay's prefix length, {IPv4 address: delegated prefix})
DOMAINS = {
    "m=0, 6to4": (
        "2002::/16", "0.0.0.0/0", 8,
        {
            "10.1.2.3": "2002:a01:203::/48",
            "10.100.200.2": "2002:a64:c802::/48",
            "10.0.0.1": "2002:a00:1::/48",
        },
    ),
    "m=0, unaligned /30": (
        "2a01:79c::/30", "0.0.0.0/0", 8,
        {
            "81.167.4.214": "2a01:79d:469c:1358::/62",
            "81.0.0.1": "2a01:79d:4400:4::/62",
            "81.255.255.254": "2a01:79d:47ff:fff8::/62",
        },
    ),
    "m=8, /32": (
        "2001:db8::/32", "10.0.0.0/8", 8,
        {
            "10.100.100.1": "2001:db8:6464:100::/56",
            "10.0.0.1": "2001:db8:0:100::/56",
            "10.100.200.2": "2001:db8:64c8:200::/56",
        },
    ),
    "m=8, /40": (
        "fd12:3456:7800::/40", "10.0.0.0/8", 8,
        {
            "10.1.2.3": "fd12:3456:7801:203::/64",
            "10.255.255.254": "fd12:3456:78ff:fffe::/64",
            "10.0.0.1": "fd12:3456:7800:1::/64",
        },
    ),
    "m=22, /46": (
        "2a02:58:54::/46", "185.227.120.0/22", 22,
        {
            "185.227.123.123": "2a02:58:57:7b00::/56",
            "185.227.120.1": "2a02:58:54:100::/56",
            "185.227.121.255": "2a02:58:55:ff00::/56",
        },
    ),
    "m=24, /56": (
        "fd00:db8:0:ab00::/56", "192.168.1.0/24", 24,
        {
            "192.168.1.155": "fd00:db8:0:ab9b::/64",
            "192.168.1.200": "fd00:db8:0:abc8::/64",
            "192.168.1.1": "fd00:db8:0:ab01::/64",
        },
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=DOMAINS)
def domain(binary, request):
    """(the table's row, {IPv4 address: host})"""
    prefix, relay_prefix, length, delegated = row = DOMAINS[request.param]
    with Lab() as lab:
        hosts = lab.underlay({name: f"{v4}/{length}" for name, v4 in zip("abc", delegated)})
        for host in hosts:
            lab.tund(host, f"--6rd-prefix {prefix} --6rd-relay-prefix {relay_prefix}")
        yield row, dict(zip(delegated, hosts))


def test_the_table_agrees_with_the_arithmetic(domain):
    (prefix, relay_prefix, _, delegated), _ = domain
    for v4, expected in delegated.items():
        assert str(sixrd.delegated(prefix, relay_prefix, v4)) == expected


def test_addresses_and_routes(domain):
    """The tunnel's address is <delegated>::1 with the domain's prefix length, so the whole domain is on-link; there is
    no other address. What nobody on this host uses of its own prefix is unreachable instead of going back out."""
    (prefix, _, _, delegated), hosts = domain
    for v4, host in hosts.items():
        own = delegated[v4]
        [link] = json.loads(host.show("-j -6 addr show dev tund0"))
        address = own.replace("::/", "::1/").split("/")[0]
        assert [(entry["local"], entry["prefixlen"]) for entry in link["addr_info"]] == [
            (address, int(prefix.split("/")[1]))
        ]
        assert link["mtu"] == 1480
        [route] = json.loads(host.show("-j -6 route show type unreachable table main"))
        assert (route["dst"], route["metric"]) == (own, 4294967295)


def test_every_pair_pings(domain):
    (*_, delegated), hosts = domain
    for sender, receiver in permutations(delegated, 2):
        assert hosts[sender].ping(delegated[receiver].split("/")[0] + "1"), f"{sender} to {receiver}"


def test_every_pair_exchanges_datagrams_and_streams(domain):
    (*_, delegated), hosts = domain
    for sender, receiver in permutations(delegated, 2):
        address = delegated[receiver].split("/")[0] + "1"
        assert traffic.udp(hosts[sender], hosts[receiver], address, count=40), f"{sender} to {receiver}"
        assert traffic.tcp(hosts[sender], hosts[receiver], address, size=1 << 18), f"{sender} to {receiver}"
