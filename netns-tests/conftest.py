"""Fixtures shared by all scenarios."""

import os
import signal
import sys

import pytest

from lab import TUND, Lab, settings_of_this_machine


def pytest_configure(config):
    # A terminated run cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if os.geteuid() != 0:
        pytest.exit("the namespace tests make network namespaces: run them as root", returncode=1)


@pytest.fixture(scope="session", autouse=True)
def untouched_machine():
    """Whatever the tests do, this machine's own settings are afterwards what they were."""
    before = settings_of_this_machine()
    yield
    after = settings_of_this_machine()
    changed = [f"{name}: {before[name]} -> {after[name]}" for name in sorted(before.keys() & after.keys())
               if before[name] != after[name]]
    assert not changed, f"net settings of this machine changed while the tests ran: {', '.join(changed)}"


@pytest.fixture(scope="session")
def binary():
    """The program under test."""
    if not TUND.is_file():
        pytest.exit(f"no tund at {TUND}: build it, or name it in the environment variable TUND", returncode=1)
    return TUND


@pytest.fixture
def lab(binary):
    """A laboratory for one test."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def shared_lab(binary):
    """A laboratory for all tests of a file."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def one_at_a_time(binary):
    """A decorator of make(lab, *arguments). It keeps what was made last for the next test with the same arguments; for
    others it is made anew, in a laboratory of its own, once the one before is closed."""
    lab, made_for, made = None, None, None

    def decorate(make):
        def get(*arguments):
            nonlocal lab, made_for, made
            if lab is None or arguments != made_for:
                if lab:
                    lab.close()
                lab, made_for = Lab(), None
                made = make(lab, *arguments)
                made_for = arguments
            return made

        return get

    yield decorate
    if lab:
        lab.close()
