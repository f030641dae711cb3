"""Kernel sit as the oracle: the same packets go through a sit device and through tund, on hosts alike in all else, and what
comes out is compared field by field. See twins.py for the topology, cases.py for the packets, and intended.py for
what may differ.

SEED=N repeats the random cases of a run; its last lines tell N."""

import os
import random
from pathlib import Path

import pytest

import report
from cases import cases_for
from compare import differences, identifications
from intended import TABLE
from lab import Lab
from tunnels import all_tunnels
from twins import AT_ONCE, SitTwin, TundTwin

SEED = int(os.environ.get("SEED") or random.SystemRandom().getrandbits(32))
RANDOM = random.Random(SEED)
TUNNELS = all_tunnels(RANDOM)

#: Fewer, and the generator has lost some.
AT_LEAST = 2000

report.seed = SEED


@pytest.fixture(scope="module")
def twins(binary):
    with Lab() as lab:
        yield SitTwin(lab), TundTwin(lab)


@pytest.mark.parametrize("tunnel", TUNNELS, ids=str)
def test_alike(twins, tunnel):
    sit, tund = twins
    for twin in twins:
        twin.become(tunnel)
    cases = cases_for(tunnel, random.Random(f"{SEED} {tunnel}"))
    report.cases += len(cases)
    unintended = []
    for start in range(0, len(cases), AT_ONCE):
        batch = cases[start : start + AT_ONCE]
        of_sit, of_tund = sit.observe(batch), tund.observe(batch)
        if (ours := identifications(of_tund.values())) != (theirs := identifications(of_sit.values())):
            unintended.append(f"identifications of {batch[0]} and those after it: sit {theirs}, tund {ours}")
        for case in batch:
            names = set()
            for difference in differences(of_sit[case.tag], of_tund[case.tag]):
                entry = next((entry for entry in TABLE if entry.explains(tunnel, case, difference)), None)
                if entry:
                    names.add(entry.name)
                else:
                    unintended.append(f"{case}\n    {difference}")
            report.intended.update(names)
    report.unintended += len(unintended)
    report.tunnels += 1
    assert not unintended, "\n".join([f"{len(unintended)} unintended differences, seed {SEED}", *unintended[:200]])


def test_number_of_cases():
    if report.tunnels < len(TUNNELS):
        pytest.skip("only a part of the tunnels was tested")
    assert report.cases >= AT_LEAST


def test_every_intended_difference_was_seen():
    if report.tunnels < len(TUNNELS):
        pytest.skip("only a part of the tunnels was tested")
    assert not {entry.name for entry in TABLE} - set(report.intended), "entries that explain nothing any more"


def test_intended_differences_are_documented():
    document = (Path(__file__).parents[2] / "docs/rfc.md").read_text()
    section = document.split("## Intended differences from sit\n")[1].split("\n## ")[0]
    missing = {entry.name for entry in TABLE if f"| `{entry.name}` |" not in section}
    assert not missing, "not in docs/rfc.md, Intended differences from sit"
