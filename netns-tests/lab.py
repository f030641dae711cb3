"""A laboratory of network namespaces: hosts, wires between them, and tund running inside.

    with Lab() as lab:
        a, b = lab.namespace("a"), lab.namespace("b")
        lab.veth(a, "eth0", b, "eth0")
        ...
        tund = lab.tund(a, "--local 10.0.0.1")
        tund.counters()["uplink.packets"]

Whatever a Lab made is gone when it closes, at the latest when the interpreter exits; what a killed run left behind
is removed by the next one. Nothing here knows about a test runner, so demos and benchmarks can use it too.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

#: The program under test: $TUND, or the release build of this repository.
TUND = Path(os.environ.get("TUND") or Path(__file__).resolve().parent.parent / ".build/release/tund").resolve()

#: Upper bound of every wait for something that is expected. Generous: reaching it is a failure, never a delay.
PATIENCE = 15.0

#: How long tund may take from SIGTERM to its exit.
STOP_WITHIN = 1.0

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_libc = ctypes.CDLL(None, use_errno=True)


def run(command: str | list[str], *, check: bool = True, timeout: float = 30, **options) -> subprocess.CompletedProcess:
    """Runs a short command to its end; its output is captured as text. Fails with that output unless `check` is off."""
    argv = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, **options)
    if check and done.returncode != 0:
        raise RuntimeError(f"{shlex.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Ping:
    """What ping found out. It shows ping's own words where a failed assertion shows it."""

    def __init__(self, done: subprocess.CompletedProcess):
        self._answered = done.returncode == 0 and " 0% packet loss" in done.stdout
        self._words = done.stdout + done.stderr

    def __bool__(self) -> bool:
        return self._answered

    def __repr__(self) -> str:
        return f"\n{self._words}"


#: The kernel's defaults (`ipv4_devconf` in net/ipv4/devinet.c, `ipv6_devconf` in net/ipv6/addrconf.c) of the settings per
#: interface. A new namespace has not these but the first namespace's: of IPv4 always, of IPv6 with
#: net.core.devconf_inherit_init_net=1. `forwarding` of `all`, which is net.ipv4.ip_forward, comes first: it writes others, too.
IPV4_CONF = dict.fromkeys("""forwarding accept_local accept_source_route arp_accept arp_announce arp_filter arp_ignore arp_notify bc_forwarding
    bootp_relay disable_policy disable_xfrm drop_gratuitous_arp drop_unicast_in_l2_multicast force_igmp_version
    ignore_routes_with_linkdown log_martians medium_id promote_secondaries proxy_arp proxy_arp_pvlan route_localnet rp_filter
    src_valid_mark tag""".split(), 0) | {
    "accept_redirects": 1, "arp_evict_nocarrier": 1, "igmpv2_unsolicited_report_interval": 10000,
    "igmpv3_unsolicited_report_interval": 1000, "secure_redirects": 1, "send_redirects": 1, "shared_media": 1}
IPV4_CONF_DEFAULT = IPV4_CONF | {"accept_source_route": 1}
IPV4_CONF_LOOPBACK = IPV4_CONF_DEFAULT | {"disable_policy": 1, "disable_xfrm": 1}
IPV6_CONF = {"accept_dad": 0, "accept_ra": 1, "accept_redirects": 1, "accept_source_route": 0, "addr_gen_mode": 0, "autoconf": 1,
             "dad_transmits": 1, "disable_ipv6": 0, "forwarding": 0, "hop_limit": 64, "keep_addr_on_down": 0, "mtu": 1280,
             "optimistic_dad": 0, "proxy_ndp": 0, "router_solicitations": -1, "use_tempaddr": 0}
IPV6_CONF_DEFAULT = IPV6_CONF | {"accept_dad": 1}


class Namespace:
    """One host: a network namespace with its loopback up, and with the kernel's own settings, whatever this machine's are."""

    def __init__(self, name: str):
        self.name = name
        run(["ip", "netns", "add", name])
        self.forget_settings()
        self.ip("link set lo up")

    def forget_settings(self) -> None:
        """Gives the settings that are inherited the kernel's defaults. Interfaces to come take those of `default`."""
        with self.entered():
            net = Path("/proc/sys/net")
            for family, interface, defaults in (
                ("ipv4", "all", IPV4_CONF), ("ipv4", "default", IPV4_CONF_DEFAULT), ("ipv4", "lo", IPV4_CONF_LOOPBACK),
                ("ipv6", "all", IPV6_CONF), ("ipv6", "default", IPV6_CONF_DEFAULT),
            ):  # fmt: skip
                for name, value in defaults.items():
                    _write_if_other(net / family / "conf" / interface / name, str(value))
            # Of br_netfilter: the switch's packets would pass this machine's kind of netfilter.
            for setting in net.glob("bridge/bridge-nf-call-*"):
                _write_if_other(setting, "0")

    def command(self, command: str | list[str]) -> list[str]:
        """The command line that runs `command` in here. The process dies with this interpreter and keeps its pid:
        each of the three programs execs the next one."""
        argv = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
        return ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name, *argv]

    def run(self, command: str | list[str], **options) -> subprocess.CompletedProcess:
        return run(self.command(command), **options)

    def ip(self, *commands: str) -> None:
        """`ip` subcommands, all in one process."""
        run(["ip", "-n", self.name, "-batch", "-"], input="\n".join(commands) + "\n")

    def show(self, command: str) -> str:
        """What an `ip` subcommand prints here."""
        return run(["ip", "-n", self.name, *shlex.split(command)]).stdout

    def sysctl(self, **settings: object) -> None:
        """Writes net.* settings; `__` stands for a dot: sysctl(ipv4__conf__all__rp_filter=0)."""
        with self.entered():
            for key, value in settings.items():
                Path("/proc/sys/net", *key.split("__")).write_text(str(value))

    def sysctl_value(self, key: str) -> str:
        with self.entered():
            return Path("/proc/sys/net", *key.split("__")).read_text().strip()

    def ping(self, address: str, *, count: int = 1, size: int = 56, options: str = "") -> Ping:
        """True if echo requests to an IPv6 address, or an IPv4 one, are answered."""
        # -W: only unanswered pings wait that long.
        return Ping(self.run(f"ping -n -c {count} -i 0.2 -W 3 -s {size} {options} {address}", check=False, timeout=60))

    @contextlib.contextmanager
    def entered(self):
        """This thread inside the namespace. A socket belongs for life to the namespace it was opened in."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as here:
            _setns(here.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace, with a time limit on all its calls."""
        with self.entered():
            opened = socket.socket(family, kind, protocol)
        opened.settimeout(PATIENCE)
        return opened

    def delete(self) -> None:
        run(["ip", "netns", "del", self.name], check=False)


def _write_if_other(setting: Path, value: str) -> None:
    """An older kernel may lack the setting."""
    with contextlib.suppress(FileNotFoundError):
        if setting.read_text().strip() != value:
            setting.write_text(value)


def settings_of_this_machine() -> dict[str, str]:
    """The net.* settings of the namespace that this interpreter runs in, but for those that the kernel writes itself: what can
    only be read, and what IPv6 routers announce for an interface."""
    settings = {}
    for directory, _, names in os.walk("/proc/sys/net"):
        for path in (Path(directory, name) for name in names):
            key = str(path.relative_to("/proc/sys")).replace("/", ".")
            is_announced = re.match(r"net\.ipv6\.(conf|neigh)\.(?!all\.|default\.)", key)
            if is_announced or not path.stat().st_mode & 0o200:
                continue
            with contextlib.suppress(OSError):  # some can only be written
                settings[key] = path.read_text().strip()
    return settings


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class PacketSocket:
    """Sends and receives whole IP packets on one interface, below the IP stack: link headers are the kernel's affair.

    On a veth it receives what the other end sent. On a TUN it receives what tund wrote, and what it sends goes to tund
    as if the host's stack had routed it there. Its own packets never come back to it.
    """

    def __init__(self, namespace: Namespace, interface: str, destination_mac: str = ""):
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 32 << 20)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((interface, _ETH_P_ALL))
        self._interface = interface
        self._mac = bytes.fromhex(destination_mac.replace(":", ""))

    def send(self, *packets) -> None:
        """Sends bytes, or whatever bytes() makes a packet of. The ethertype follows the first nibble: IPv4
        for 4, else IPv6 on a TUN; IPv6 for 6, else IPv4 elsewhere."""
        for packet in packets:
            packet = bytes(packet)
            version = packet[0] >> 4 if packet else 0
            ipv6 = version == 6 if self._mac else version != 4
            to = (self._interface, _ETH_P_IPV6 if ipv6 else _ETH_P_IP, 0, 0, self._mac)
            self._socket.sendto(packet, to)

    def receive(self, count: int, timeout: float = PATIENCE) -> list[bytes]:
        """The next `count` packets; fewer when the time is up."""
        packets: list[bytes] = []
        end = time.monotonic() + timeout
        while len(packets) < count and (packet := self._next(end)) is not None:
            packets.append(packet)
        return packets

    def receive_until(self, wanted, timeout: float = PATIENCE) -> tuple[list[bytes], bytes | None]:
        """The packets before the first one for which wanted(packet) holds, and that one: None when the time is up."""
        before: list[bytes] = []
        end = time.monotonic() + timeout
        while (packet := self._next(end)) is not None:
            if wanted(packet):
                return before, packet
            before.append(packet)
        return before, None

    def drain(self) -> list[bytes]:
        """What has already arrived."""
        return self.receive(1 << 30, timeout=0)

    def _next(self, end: float) -> bytes | None:
        while True:
            self._socket.settimeout(max(0.0, end - time.monotonic()))
            try:
                return self._socket.recv(1 << 17)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # said once whenever the interface goes down
                    raise

    def close(self) -> None:
        self._socket.close()


class Process:
    """A long-running program; its output is collected line by line as it comes."""

    def __init__(self, argv: list[str]):
        self.argv = [str(word) for word in argv]
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = threading.Condition()
        self._open_streams = 2
        self.expected_to_end = False
        self._popen = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._readers = [
            threading.Thread(target=self._collect, args=pair, daemon=True)
            for pair in ((self._popen.stdout, self.out), (self._popen.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _collect(self, stream, lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    lines.append(line.rstrip("\n"))
                    self._received(lines, lines[-1])
                    self._changed.notify_all()
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()

    def _received(self, lines: list[str], line: str) -> None:
        """For subclasses: called with each new line of `out` or `err`."""

    def wait_until(self, condition, what: str, timeout: float = PATIENCE):
        """Waits until condition() is true, looking again whenever a line comes; its value is returned."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition() or self._open_streams == 0, timeout):
                raise AssertionError(f"no {what} within {timeout} s\n{self.transcript()}")
            if not (value := condition()):
                raise AssertionError(f"ended before {what}\n{self.transcript()}")
            return value

    def transcript(self) -> str:
        """The command line, the end of its output, and how it ended."""
        lines = [f"$ {shlex.join(self.argv)}", *(f"out: {line}" for line in self.out[-20:])]
        return "\n".join([*lines, *(f"err: {line}" for line in self.err), f"exit: {self._popen.poll()}"])

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code, once the program has ended and all of its output is here."""
        self.expected_to_end = True
        code = self._popen.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return code

    def kill(self) -> None:
        self.expected_to_end = True
        if self.running:
            self._popen.kill()
            self.wait()


class Tund(Process):
    """`tund run` in a namespace, waited for until it says that it is ready, or what else it is to say."""

    def __init__(
        self, namespace: Namespace, options: str = "", *, name: str = "tund0", binary=TUND, through=(), until: str = "ready"
    ):
        """`through` is a command that execs the rest of its command line, to start tund under other circumstances."""
        self.name = name
        self._blocks: list[Counter] = []
        self._sit: dict[str, int] = {}
        super().__init__(namespace.command([*through, binary, "run", name, *shlex.split(options)]))
        try:
            self.wait_until(lambda: any(until in line for line in self.err), f"line with '{until}' on stderr")
        except AssertionError:
            self.kill()
            raise

    def counters(self) -> Counter:
        """The counters of this moment by name: "uplink.packets", "downlink.short", "underlay-send.EPERM", ...

        A block has no last line of its own, but each begins with the same one: so two are asked for, and the first is
        complete when the second begins.
        """
        asked = len(self._blocks)
        for wanted in (asked + 1, asked + 2):
            self.signal(signal.SIGUSR1)
            self.wait_until(lambda: len(self._blocks) >= wanted, "counters after SIGUSR1")
        return self._blocks[asked]

    def counters_once(self, condition) -> Counter:
        """The counters as soon as condition(counters) holds: a packet is counted a moment after it has been seen."""
        end = time.monotonic() + PATIENCE
        while not condition(counters := self.counters()):
            assert time.monotonic() < end, f"{counters}\n{self.transcript()}"
        return counters

    def quiet_counters(self) -> Counter:
        """The counters as soon as nothing is counted any more: what earlier connections had to say is said."""
        end = time.monotonic() + PATIENCE
        counters = self.counters()
        while True:
            time.sleep(0.3)
            before, counters = counters, self.counters()
            if counters == before:
                return counters
            assert time.monotonic() < end, f"{before}\n{counters}\n{self.transcript()}"

    def sit_counters(self) -> dict[str, int]:
        """By the names of a sit interface's."""
        self.counters()
        return dict(self._sit)

    def final_counters(self) -> Counter:
        """The counters printed at the end."""
        return self._blocks[-1]

    def _received(self, lines: list[str], line: str) -> None:
        if lines is not self.out:
            return
        if line.startswith("counter uplink.packets "):
            self._blocks.append(Counter())
        if match := re.match(r"(?:counter|drop|error) (\S+) (\d+)(?: #.*)?$", line):
            self._blocks[-1][match[1]] = int(match[2])
        elif match := re.match(r"sit (\w+) (\d+)$", line):
            self._sit[match[1]] = int(match[2])

    def threads(self) -> list[Path]:
        """/proc/PID/task/TID of each thread."""
        return sorted(Path(f"/proc/{self.pid}/task").iterdir())

    def stop(self, by: int = signal.SIGTERM) -> Counter:
        """Asks tund to end, holds it to its word (exit code 0, at once) and returns the final counters."""
        assert self.running, f"tund has ended unasked\n{self.transcript()}"
        started = time.monotonic()
        self.signal(by)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"tund does not end on {signal.Signals(by).name}\n{self.transcript()}") from None
        took = time.monotonic() - started
        assert code == 0, f"exit code {code} on {signal.Signals(by).name}\n{self.transcript()}"
        assert took < STOP_WITHIN, f"took {took:.2f} s to end\n{self.transcript()}"
        return self.final_counters()


class Lab:
    """Owns namespaces, and the processes and sockets in them."""

    _serial = 0

    def __init__(self):
        remove_leftovers()
        # io_uring's rings count as locked memory of their user. On hosts of their own each has that limit for itself; here
        # all of them are one user of one kernel. (Without CAP_SYS_RESOURCE the limit stays.)
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.namespaces: list[Namespace] = []
        self.processes: list[Process] = []
        self.sockets: list[PacketSocket] = []
        atexit.register(self._destroy)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def namespace(self, name: str) -> Namespace:
        Lab._serial += 1
        made = Namespace(f"tund-{os.getpid()}-{Lab._serial}-{name}")
        self.namespaces.append(made)
        return made

    def veth(self, a: Namespace, a_interface: str, b: Namespace, b_interface: str, *, mtu: int = 1500) -> None:
        """A wire between two namespaces, both ends up."""
        run(f"ip link add {a_interface} mtu {mtu} netns {a.name} type veth"
            f" peer name {b_interface} mtu {mtu} netns {b.name}")
        a.ip(f"link set {a_interface} up")
        b.ip(f"link set {b_interface} up")

    def outside(self, router: Namespace, router_address: str, address: str) -> Namespace:
        """A host without a tunnel that knows only `router`, which forwards, over a link of their own: `lan` there."""
        outside = self.namespace("outside")
        self.veth(router, "lan", outside, "eth0")
        router.sysctl(ipv6__conf__all__forwarding=1)
        router.ip(f"addr add {router_address}/64 dev lan nodad")
        outside.ip(f"addr add {address}/64 dev eth0 nodad", f"route add default via {router_address}")
        return outside

    def underlay(self, addresses: dict[str, str], *, mtu: int = 1500) -> list[Namespace]:
        """Hosts {name: IPv4 address/length}, each with an eth0, all on one switch.

        They know each other's hardware addresses: the kernel keeps packets for a neighbour that it still asks for, and lets
        those that follow the answer overtake them."""
        switch = self.namespace("switch")
        switch.ip("link add bridge0 type bridge mcast_snooping 0", "link set bridge0 up")
        hosts = []
        for name, address in addresses.items():
            host = self.namespace(name)
            self.veth(host, "eth0", switch, f"to-{name}", mtu=mtu)
            host.ip(f"addr add {address} dev eth0")
            switch.ip(f"link set to-{name} master bridge0")
            hosts.append(host)
        for host, address in zip(hosts, addresses.values()):
            [hardware] = re.findall(r"link/ether (\S+)", host.show("link show eth0"))
            for other in hosts:
                if other is not host:
                    other.ip(f"neigh add {address.split('/')[0]} lladdr {hardware} dev eth0 nud reachable")
        return hosts

    def tund(self, namespace: Namespace, options: str = "", **arguments) -> Tund:
        started = Tund(namespace, options, **arguments)
        self.processes.append(started)
        return started

    def process(self, namespace: Namespace, command: str | list[str]) -> Process:
        """Any other program, until it is killed or the Lab closes."""
        started = Process(namespace.command(command))
        self.processes.append(started)
        return started

    def packet_socket(self, namespace: Namespace, interface: str, destination_mac: str = "") -> PacketSocket:
        opened = PacketSocket(namespace, interface, destination_mac)
        self.sockets.append(opened)
        return opened

    def close(self) -> None:
        """Removes everything. Every tund must be running until it is told to end, and then end as it promises: failures
        to do so are raised once all is clean."""
        failures = []
        for process in self.processes:
            if isinstance(process, Tund) and not process.expected_to_end:
                try:
                    process.stop()
                except AssertionError as failure:
                    failures.append(failure)
        self._destroy()
        atexit.unregister(self._destroy)
        if failures:
            raise failures[0]

    def _destroy(self) -> None:
        for process in self.processes:
            process.kill()
        for opened in self.sockets:
            opened.close()
        for namespace in self.namespaces:
            namespace.delete()
        self.processes, self.sockets, self.namespaces = [], [], []


def remove_leftovers() -> None:
    """Removes the namespaces, and the processes inside, of runs that are no more."""
    directory = Path("/run/netns")
    for path in directory.iterdir() if directory.exists() else ():
        owner = re.match(r"tund-(\d+)-\d+-", path.name)
        if owner and not Path("/proc", owner[1]).exists():
            for pid in run(["ip", "netns", "pids", path.name], check=False).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            run(["ip", "netns", "del", path.name], check=False)
