"""The 6rd arithmetic (RFC 5969, section 7.1.1), written a second time so that tund is not its own judge."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


def delegated(prefix: str, relay_prefix: str, host: str) -> IPv6Network:
    """What a host with an IPv4 address owns in a domain: P followed by the low 32-m bits of the address."""
    p, r = IPv6Network(prefix), IPv4Network(relay_prefix)
    suffix_bits = 32 - r.prefixlen
    suffix = int(IPv4Address(host)) & (1 << suffix_bits) - 1
    length = p.prefixlen + suffix_bits
    return IPv6Network((int(p.network_address) | suffix << 128 - length, length))


def own_address(prefix: str, relay_prefix: str, host: str) -> IPv6Address:
    """<delegated>::1, what `--address auto` gives the tunnel."""
    return delegated(prefix, relay_prefix, host)[1]


def embedded(prefix: str, relay_prefix: str, address: str) -> IPv4Address:
    """The host that an IPv6 address of the domain belongs to."""
    p, r = IPv6Network(prefix), IPv4Network(relay_prefix)
    assert IPv6Address(address) in p
    suffix_bits = 32 - r.prefixlen
    suffix = int(IPv6Address(address)) >> 128 - p.prefixlen - suffix_bits & (1 << suffix_bits) - 1
    return IPv4Address(int(r.network_address) | suffix)
