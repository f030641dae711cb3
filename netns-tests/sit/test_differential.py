"""Kernel sit as the oracle: the same packets go through a sit device and through tund, on hosts alike in all else, and what
comes out is compared field by field. See twins.py for the topology, cases.py for the packets, and intended.py for
what may differ.

SEED=N repeats the random cases of a run; its last lines tell N."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import report
from cases import Case, Generator, batches_for, error_about
from compare import differences, identifications
from errors import SHORT, TRANSLATED, errors_for, first, fragmentation_needed
from intended import NAMES, UNCOUNTED, explanations, is_counted_elsewhere
from lab import Lab
from tunnels import OF_ERRORS, OF_PATH_MTU, OF_SOFT_ERRORS, all_tunnels
from twins import SitTwin, TundTwin

SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
RANDOM = random.Random(SEED)
TUNNELS = all_tunnels(RANDOM)

#: How many times the twins become something.
IN_ALL = len(TUNNELS + OF_ERRORS + OF_SOFT_ERRORS + OF_PATH_MTU)

#: Fewer, and the generator has lost some.
AT_LEAST = 2000

report.seed = SEED


@pytest.fixture(scope="module")
def twins(binary):
    with Lab() as lab:
        yield SitTwin(lab), TundTwin(lab)


def judge(tunnel, case, of_sit, of_tund) -> tuple[set[str], list[str]]:
    """The names of the intended differences in what came of a case, and the other differences in words."""
    names, others = set(), []
    for difference in differences(of_sit[case.tag], of_tund[case.tag]):
        if entry := next(explanations(tunnel, case, difference), None):
            names.add(entry.name)
        else:
            others.append(f"{case}\n    {difference}")
    report.intended.update(names)
    report.unintended += len(others)
    report.cases += 1
    return names, others


def check(unintended: list[str]) -> None:
    assert not unintended, "\n".join([f"{len(unintended)} unintended differences, seed {SEED}", *unintended[:200]])


@pytest.mark.parametrize("tunnel", TUNNELS, ids=str)
def test_alike(twins, tunnel):
    sit, tund = twins
    for twin in twins:
        twin.become(tunnel)
    counted = Counted(*twins)
    unintended = []
    for counts_alike, batch in parted(tunnel, batches_for(tunnel, random.Random(f"{SEED} {tunnel}"))):
        of_sit, of_tund = sit.observe(batch), tund.observe(batch)
        if (ours := identifications(of_tund.values())) != (theirs := identifications(of_sit.values())):
            unintended.append(f"identifications of {batch[0]} and those after it: sit {theirs}, tund {ours}")
        names = set()
        for case in batch:
            intended, others = judge(tunnel, case, of_sit, of_tund)
            names |= intended
            unintended += others
        # Point to point sit writes the path's MTU into the sender's route: then the kernel tells that a packet is too big.
        tells_itself = bool(tunnel.prefix) or tunnel.mtu + 20 <= tunnel.underlay_mtu
        countable = counts_alike and names <= UNCOUNTED and tells_itself and not unintended
        apart = counted.apart(patience=2 if countable else 0)
        if countable and apart:
            unintended.append(f"counters of {batch[0]} and those after it: {apart}")
    report.tunnels += 1
    check(unintended)


def parted(tunnel, batches: list[list[Case]]) -> Iterator[tuple[bool, list[Case]]]:
    """What both count alike, and what not, in batches of their own."""
    for batch in batches:
        apart = [is_counted_elsewhere(tunnel, case) for case in batch]
        for counts_alike in (True, False):
            if part := [case for case, is_apart in zip(batch, apart) if is_apart != counts_alike]:
                yield counts_alike, part


class Counted:
    """The counters of both since they were last asked."""

    def __init__(self, sit, tund):
        self.twins = sit, tund
        self.before = [twin.counters() for twin in self.twins]

    def apart(self, patience: float) -> str:
        """Those that did not rise alike. A packet is counted a moment after it was seen, so tund has some time."""
        end = time.monotonic() + patience
        while True:
            now = [twin.counters() for twin in self.twins]
            of_sit, of_tund = ({name: after[name] - before[name] for name in now[1]}
                               for before, after in zip(self.before, now))
            if of_sit == of_tund or time.monotonic() > end:
                break
        self.before = now
        return ", ".join(f"{name}: sit {of_sit[name]}, tund {of_tund[name]}" for name in of_sit if of_sit[name] != of_tund[name])


def probes(tunnel, count: int, **fields) -> list[Case]:
    """Good packets for the peer."""
    generator = Generator(tunnel, RANDOM)
    for _ in range(count):
        generator.up("probe", **fields)
    return generator.cases


@pytest.mark.parametrize("tunnel", OF_ERRORS, ids=str)
def test_icmp_errors(twins, tunnel):
    """About one packet each, as each host sent it."""
    errors = errors_for(tunnel)
    sent = probes(tunnel, len(errors), payload=RANDOM.randbytes(200))
    came, about = [], []
    for twin in twins:
        twin.become(tunnel)
        to_wire = {tag: outcome.wire for tag, outcome in twin.observe(sent).items()}
        about.append([error_about(case, to_wire[case.tag][0], error, tunnel) for case, error in zip(sent, errors)])
        came.append(twin.observe(about[-1]))
    unintended = [words for case in about[0] for words in judge(tunnel, case, *came)[1]]
    told = sum(bool(outcome.pod) for outcome in came[1].values())
    assert told >= len(TRANSLATED), "tund said nothing"
    report.tunnels += 1
    check(unintended)


@pytest.mark.parametrize("tunnel", OF_SOFT_ERRORS, ids=str)
def test_soft_errors(twins, tunnel):
    """Three errors that do not show whose packets they are about: the sources of the next three packets are told, and yet these
    go out."""
    for twin in twins:
        twin.become(tunnel)
    unintended = []
    for error in SHORT:
        cases = probes(tunnel, 5, way="pod")
        came = []
        for twin in twins:
            twin.hear([error.about(tunnel.from_here(0xFFFF4), tunnel)] * 3)
            came.append(twin.observe(cases))
        told = [bool(came[0][case.tag].pod) for case in cases]
        keeps = (error.kind, error.code) in TRANSLATED and not (tunnel.ttl is None and error.kind == 11)
        assert told == [keeps] * 3 + [False] * 2 and all(came[0][case.tag].wire for case in cases), f"{error}: sit tells {told}"
        unintended += [words for case in cases for words in judge(tunnel, case, *came)[1]]
    report.tunnels += 1
    check(unintended)


@pytest.mark.parametrize("tunnel", OF_PATH_MTU, ids=str)
def test_fragmentation_needed(twins, tunnel):
    """The MTU that a router reports is what the next packets are held against, also if it quotes next to nothing."""
    unintended = []
    try:
        for twin in twins:
            twin.become(tunnel)
            twin.keeps_routes = True
        for mtu, quote in ((1400, first(8)), (1350, bytes), (1290, bytes)):
            least = max(1280, mtu - 20)
            cases = [case for length in (1280, least, least + 1, 1480)
                     for case in probes(tunnel, 1, payload=bytes(length - 40), way="pod")]
            came = []
            for twin in twins:
                twin.hear([fragmentation_needed(mtu, quote).about(tunnel.from_here(0xFFFF4), tunnel)])
                came.append(twin.observe(cases))
            told = [[int.from_bytes(packet[44:48], "big") for packet in came[0][case.tag].pod] for case in cases]
            assert told == [[], [], [least], [least]], f"a path of {mtu}: sit tells {told}"
            unintended += [words for case in cases for words in judge(tunnel, case, *came)[1]]
    finally:
        for twin in twins:
            twin.keeps_routes = False
    report.tunnels += 1
    check(unintended)


def test_number_of_cases():
    if report.tunnels < IN_ALL:
        pytest.skip("only a part of the tunnels was tested")
    assert report.cases >= AT_LEAST


def test_every_intended_difference_was_seen():
    if report.tunnels < IN_ALL:
        pytest.skip("only a part of the tunnels was tested")
    assert not NAMES - set(report.intended), "entries that explain nothing any more"


def test_intended_differences_are_documented():
    document = (Path(__file__).parents[2] / "docs/rfc.md").read_text()
    section = document.split("## Intended differences from sit\n")[1].split("\n## ")[0]
    missing = {name for name in NAMES if f"| `{name}` |" not in section}
    assert not missing, "not in docs/rfc.md, Intended differences from sit"
