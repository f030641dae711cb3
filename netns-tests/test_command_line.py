"""The command line: what is refused, with which exit code, and that a refusal changes nothing.

    host: eth0 10.0.0.1/8, eth1 192.168.7.1/24
"""

import re

import pytest

from lab import run

USAGE, FAILURE = 64, 1


@pytest.fixture(scope="module")
def host(shared_lab, binary):
    made, far = shared_lab.namespace("host"), shared_lab.namespace("far")
    shared_lab.veth(made, "eth0", far, "eth0")
    shared_lab.veth(made, "eth1", far, "eth1")
    made.sysctl(ipv6__conf__eth0__disable_ipv6=1, ipv6__conf__eth1__disable_ipv6=1)
    made.ip("addr add 10.0.0.1/8 dev eth0", "addr add 192.168.7.1/24 dev eth1")
    return made


@pytest.fixture
def unchanged(host):
    """Whatever the test does, links, addresses and routes of the host are the same afterwards."""

    def state() -> list[str]:
        return [host.show(f"{family} {what}") for family in ("-4", "-6") for what in ("addr show", "route show table all")]

    before = state()
    yield
    assert state() == before


WRONG = {
    "--local": ["x", "", "10.0.0", "256.1.1.1", "10.0.0.1/8", "::1", "fe80::1", "010.0.0.1.2"],
    "--remote": ["x", "", "10.0.0", "10.0.0.0/8", "fe80::1"],
    "--6rd-prefix": ["x", "", "2002::", "2002::/129", "2002::/-1", "2002::/x", "10.0.0.0/8", "fd00::1/32"],
    "--6rd-relay-prefix": ["x", "", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/8", "fd00::/8"],
    "--relay": ["x", "", "10.0.0.0/8", "fe80::1"],
    "--route": ["x", "", "2001:db8::/32", "2001:db8::/32=", "=10.0.0.2", "2001:db8::/32=x", "2001:db8::=10.0.0.2",
                "2001:db8::1/32=10.0.0.2", "2001:db8::/129=10.0.0.2", "2001:db8::/32=fe80::1"],
    "--local-prefix": ["x", "", "2001:db8::", "2001:db8::/129", "2001:db8::1/32", "10.0.0.0/8"],
    "--ecn": ["x", "", "copy"],
    "--source-check": ["x", "", "Strict"],
    "--mode": ["x", "", "mplsip", "6in4"],
    "--ttl": ["x", "", "0", "256", "-1", "1.5", "64x"],
    "--tos": ["x", "", "256", "-1", "1.5"],
    "--mtu": ["x", "", "0", "-1", "1279", "65536"],
    "--mss-clamp": ["x", "", "0", "-1", "535", "65456"],
    "--fwmark": ["x", "", "-1", "4294967296", "0x"],
    "--underlay-netns": ["", "fd:", "fd:x", "fd:-1"],
    "--address": ["x", "", "2001:db8::1", "2001:db8::1/129", "10.0.0.9/8"],
    "--user": ["", "root", "0", "0:1", ":", "a:b:c", "1:", ":1", "-1", "no such user", "nosuchuser", "4294967295:1", "1:4294967295",
               "1:nosuchgroup", "4294967294"],
    "--workers": ["x", "", "0", "-1"],
    "--log-level": ["x", ""],
}  # fmt: skip


@pytest.mark.parametrize(
    "option, value", [(option, value) for option, values in WRONG.items() for value in values],
    ids=[f"{option}={value}" for option, values in WRONG.items() for value in values],
)  # fmt: skip
def test_a_wrong_value(host, unchanged, binary, option, value):
    done = host.run([binary, "run", f"{option}={value}"], check=False)
    assert done.returncode == USAGE, done.stderr
    assert option in done.stderr, done.stderr
    assert value in done.stderr, done.stderr


@pytest.mark.parametrize("option", [option for option in WRONG] + ["--dev"])
def test_a_missing_value(host, unchanged, binary, option):
    done = host.run([binary, "run", option], check=False)
    assert done.returncode == USAGE and option in done.stderr


USAGE_ERRORS = [
    ("unknown option", "run --nonsense", "nonsense"),
    ("a second name", "run tund0 tund1", "tund1"),
    ("a name of 16 characters", "run abcdefghijklmnop", "abcdefghijklmnop"),
    ("a name with a slash", "run tun/d0", "tun/d0"),
    ("an empty name", "run ''", "(?i)name"),
    ("IPv4 inside, to nobody", "run --mode ipip", "--mode ipip"),
    ("a default route to nobody", "run --default-route", "--default-route"),
    ("a domain of more than 64 bits", "run --6rd-prefix fd00::/33", "--6rd-prefix"),
    ("a smaller domain of more than 64 bits", "run --6rd-prefix fd00::/41 --6rd-relay-prefix 10.0.0.0/8", "6rd"),
    ("an unknown subcommand", "walk", "walk"),
    ("map: not an address", "map x", "x"),
    ("map: two addresses", "map 10.0.0.1 10.0.0.2", "10.0.0.2"),
    ("map: a wrong prefix", "map --6rd-prefix x 10.0.0.1", "--6rd-prefix"),
    ("map: a wrong relay prefix", "map --6rd-relay-prefix 10.0.0.1/8 10.0.0.1", "--6rd-relay-prefix"),
]


@pytest.mark.parametrize("arguments, named", [row[1:] for row in USAGE_ERRORS], ids=[row[0] for row in USAGE_ERRORS])
def test_usage(host, unchanged, binary, arguments, named):
    done = host.run(f"{binary} {arguments}", check=False)
    assert done.returncode == USAGE, done.stderr
    assert re.search(named, done.stderr), done.stderr


FAILURES = [
    ("a local address of somebody else", "--local 10.0.0.77 --no-wait", "10.0.0.77"),
    ("an interface that is not here", "--dev nosuch0", "nosuch0"),
    ("an interface without an address", "--dev lo --no-wait", "lo"),
    ("an interface that exists, a veth", "eth1 --local 10.0.0.1", "eth1"),
    ("an interface that exists, the loopback", "lo --local 10.0.0.1", "lo"),
]


@pytest.mark.parametrize("arguments, named", [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_a_failure_of_this_host(host, unchanged, binary, arguments, named):
    done = host.run(f"{binary} run {arguments}", check=False)
    assert done.returncode == FAILURE, done.stderr
    assert named in done.stderr.splitlines()[-1]


def test_a_tun_that_exists(host, binary):
    """Even one without a user: it may be somebody's that is just restarting."""
    host.ip("tuntap add tund7 mode tun")
    try:
        done = host.run(f"{binary} run tund7 --local 10.0.0.1", check=False)
        assert done.returncode == FAILURE and "tund7" in done.stderr.splitlines()[-1]
    finally:
        host.ip("link del tund7")


def test_a_tun_in_use(host, lab, binary):
    lab.tund(host, "--local 10.0.0.1", name="tund8")
    done = host.run(f"{binary} run tund8 --local 192.168.7.1", check=False)
    assert done.returncode == FAILURE and "tund8" in done.stderr.splitlines()[-1]


def test_a_host_without_ipv4(lab, binary):
    bare = lab.namespace("bare")
    done = bare.run(f"{binary} run --no-wait", check=False)
    assert done.returncode == FAILURE and done.stderr


def test_a_local_address_beyond_the_domain(host, unchanged, binary):
    done = host.run(f"{binary} run --local 192.168.7.1 --6rd-prefix fd00::/32 --6rd-relay-prefix 10.0.0.0/8", check=False)
    assert done.returncode in (USAGE, FAILURE) and "192.168.7.1" in done.stderr


CHECKS = [
    ("--dev eth1", ["tund0", "192.168.7.1", "2002:c0a8:701::/48"]),
    ("overlay --local 10.0.0.1", ["overlay", "10.0.0.1", "2002:a00:1::/48"]),
    ("--local 10.0.0.1 --6rd-prefix fd12:3456:7800::/40 --6rd-relay-prefix 10.0.0.0/8 --mtu 1400",
     ["tund0", "10.0.0.1", "fd12:3456:7800:1::", "1400"]),
    ("--local 10.0.0.1 --remote 10.0.0.2", ["tund0", "10.0.0.1", "10.0.0.2", "fe80::a00:1/64"]),
    ("--local 10.0.0.1 --remote 10.0.0.2 --mode ipip", ["tund0", "10.0.0.2", "IPv4"]),
    ("--local 10.0.0.1 --relay 10.0.0.9 --default-route", ["10.0.0.9"]),
    ("--local 10.0.0.1 --user 54242:54243", ["# user 54242:54243", "vnet_hdr user 54242"]),
    ("--local 10.0.0.1", ["# warning", "uid 0", "--user"]),
    ("--local 10.0.0.1 --route 2001:db8:5::/48=10.0.0.5", ["2001:db8:5::/48", "10.0.0.5"]),
    ("--local 10.0.0.77", ["would wait", "10.0.0.77", "10.0.0.1 (eth0)"]),
]  # fmt: skip


@pytest.mark.parametrize("arguments, told", CHECKS)
def test_check_tells_and_does_nothing(host, unchanged, binary, arguments, told):
    done = host.run(f"{binary} run {arguments} --check")
    assert not [word for word in told if word not in done.stdout], done.stdout + done.stderr


@pytest.mark.parametrize("option, value", [("--ttl", "0"), ("--mtu", "1279"), ("--6rd-prefix", "fd00::/33")])
def test_check_finds_what_run_would(host, unchanged, binary, option, value):
    done = host.run(f"{binary} run --check {option} {value}", check=False)
    assert done.returncode == USAGE and option in done.stderr


@pytest.mark.parametrize("arguments", ["--help", "run --help", "map --help", "--version"])
def test_information(binary, arguments):
    done = run(f"{binary} {arguments}")
    assert done.stdout and not done.stderr


@pytest.mark.parametrize("option", [option for option in WRONG if option != "--log-level"] + [
    "--default-route", "--border-relay", "--pmtudisc", "--no-pmtudisc", "--dev", "--check", "--no-wait", "--no-restore"])  # fmt: skip
def test_help_tells_every_option(binary, option):
    assert option.removeprefix("--no-") in run(f"{binary} run --help").stdout
