"""What is measured: ways to carry IPv6 from a client to a server over one IPv4 veth.

      client 10.0.0.1 eth0 ------- veth ------- eth0 10.0.0.2 server
                        `==== the contender's ====='

A contender is made fresh in a Lab of its own each time, and gone with it.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "netns-tests"))
from lab import TUND, Lab, Namespace, Process, Tund, run  # noqa: E402

VXLAN_OVERHEAD = 50  # outer Ethernet 14, IPv4 20, UDP 8, VXLAN 8
SIT_OVERHEAD = 20  # IPv4

#: The two kinds of wire. A veth hands 64 KiB packets with unfinished checksums across; no cable does.
SECTIONS = {"as-is": "veth as it is", "wire": "veth like a wire"}
_WIRE = "tso off gso off gro off tx off"


@dataclass
class Route:
    """Where a load runs: from `client` to `server` at `address`."""

    lab: Lab
    client: Namespace
    server: Namespace
    address: str
    #: The tunnel's interface at both ends; eth0 where there is none.
    device: str = "eth0"
    #: The programs that carry the packets, one per end; none where the kernel does.
    daemons: list[Process] = field(default_factory=list)


@dataclass(frozen=True)
class Contender:
    key: str
    label: str
    #: Sets the tunnel up between two hosts that reach each other by IPv4.
    make: Callable[[Lab, Namespace, Namespace], Route]
    #: Options of `tund run` that it needs.
    options: str = ""


def _veth(lab: Lab, client: Namespace, server: Namespace) -> Route:
    for number, host in enumerate((client, server), 1):
        host.ip(f"addr add fd01::{number}/64 dev eth0 nodad")
    return Route(lab, client, server, "fd01::2")


def _vxlan(lab: Lab, client: Namespace, server: Namespace) -> Route:
    for number, host in enumerate((client, server), 1):
        host.ip(
            f"link add vxlan0 mtu {1500 - VXLAN_OVERHEAD} type vxlan id 7 dstport 4789"
            f" local 10.0.0.{number} remote 10.0.0.{3 - number} dev eth0",
            f"addr add fd02::{number}/64 dev vxlan0 nodad",
            "link set vxlan0 up",
        )
    return Route(lab, client, server, "fd02::2", "vxlan0")


def _sit(lab: Lab, client: Namespace, server: Namespace) -> Route:
    """The kernel's tunnel with the same domain that tund gets."""
    for number, host in enumerate((client, server), 1):
        host.ip(f"link add sit1 mtu {1500 - SIT_OVERHEAD} type sit local 10.0.0.{number} remote any ttl 64 dev eth0")
        host.ip("tunnel 6rd dev sit1 6rd-prefix fd00::/32")
        host.ip("link set sit1 up", f"addr add fd00:0:a00:{number}::1/32 dev sit1 nodad")
    return Route(lab, client, server, "fd00:0:a00:2::1", "sit1")


def _socat(lab: Lab, client: Namespace, server: Namespace) -> Route:
    """What people script: TUN to raw IP. IP4-SENDTO takes packets of the peer alone, and socat strips their IPv4 header."""
    daemons = []
    for number, host in enumerate((client, server), 1):
        daemon = lab.process(host, f"socat -b 65536 TUN,tun-name=tun0,iff-no-pi,iff-up IP4-SENDTO:10.0.0.{3 - number}:41")
        daemons.append(daemon)
        _wait_for_device(host, "tun0", daemon)
        host.ip(f"link set tun0 mtu {1500 - SIT_OVERHEAD} up", f"addr add fd03::{number}/64 dev tun0 nodad")
    return Route(lab, client, server, "fd03::2", "tun0", daemons)


def _wait_for_device(host: Namespace, device: str, daemon: Process) -> None:
    def exists() -> bool:
        return f'"{device}"' in host.show("-j link")

    for _ in range(200):
        if exists():
            return
        with contextlib.suppress(AssertionError):
            daemon.wait_until(lambda: False, device, timeout=0.025)
    raise RuntimeError(f"no {device}\n{daemon.transcript()}")


def _tund(key: str, label: str, options: str = "") -> Contender:
    def make(lab: Lab, client: Namespace, server: Namespace) -> Route:
        daemons: list[Process] = [lab.tund(host, f"--6rd-prefix fd00::/32 {options}") for host in (client, server)]
        return Route(lab, client, server, "fd00:0:a00:2::1", "tund0", daemons)

    return Contender(key, label, make, options)


CONTENDERS: dict[str, Contender] = {
    contender.key: contender
    for contender in (
        Contender("veth", "plain veth", _veth),
        Contender("vxlan", "kernel VXLAN", _vxlan),
        Contender("sit", "kernel sit", _sit),
        Contender("socat", "socat", _socat),
        _tund("tund", "tund"),
        _tund("tund-1-worker", "tund --workers 1", "--workers 1"),
        _tund("tund-pin", "tund --pin", "--pin"),
        _tund("tund-no-tso", "tund --no-tso", "--no-tso"),
        _tund("tund-no-uso", "tund --no-uso", "--no-uso"),
        _tund("tund-no-gro", "tund --no-gro", "--no-gro"),
        _tund("tund-no-offload", "tund, offloads off", "--no-tso --no-uso --no-gro"),
        _tund("tund-busy-poll", "tund --busy-poll 50", "--busy-poll 50"),
    )
}


def missing(contender: Contender) -> str | None:
    """Why a contender cannot run here, or None."""
    if contender.key == "sit":
        return _device_type_missing("sit local 192.0.2.1 remote 192.0.2.2")
    if contender.key == "vxlan":
        return _device_type_missing("vxlan id 7 dstport 4789")
    if contender.key.startswith("tund"):
        known = set(re.findall(r"--[a-z0-9-]+", run([TUND, "run", "--help"]).stdout))
        unknown = [word for word in contender.options.split() if word.startswith("--") and word not in known]
        return f"this tund has no {', '.join(unknown)}" if unknown else None
    return None


def _device_type_missing(kind: str) -> str | None:
    with _sit_as_found(), Lab() as lab:
        try:
            lab.namespace("probe").ip(f"link add probe0 type {kind}")
        except RuntimeError as error:
            return f"this kernel has no {kind.split()[0]}: {str(error).splitlines()[1]}"
    return None


@contextlib.contextmanager
def _sit_as_found() -> Iterator[None]:
    """Unloads sit and tunnel4 if they were loaded meanwhile: from then on the kernel takes every program's protocol 41."""
    before = Path("/sys/module/sit").exists()
    yield
    if not before and Path("/sys/module/sit").exists():
        run("rmmod sit tunnel4", check=False)


@contextlib.contextmanager
def route(contender: Contender, section: str = "as-is") -> Iterator[Route]:
    """A contender, set up and answering; removed at the end."""
    with _sit_as_found(), Lab() as lab:
        client, server = lab.namespace("client"), lab.namespace("server")
        lab.veth(client, "eth0", server, "eth0")
        for number, host in enumerate((client, server), 1):
            host.ip(f"addr add 10.0.0.{number}/24 dev eth0")
            if section == "wire":
                host.run(f"ethtool -K eth0 {_WIRE}")
        made = contender.make(lab, client, server)
        if not any(client.ping(made.address) for _ in range(3)):
            transcripts = "\n".join(daemon.transcript() for daemon in made.daemons)
            raise RuntimeError(f"{contender.label}: no ping from end to end\n{transcripts}")
        yield made


def tunds(made: Route) -> list[Tund]:
    return [daemon for daemon in made.daemons if isinstance(daemon, Tund)]
