"""Fixtures shared by all scenarios."""

import os
import signal
import sys

import pytest

from lab import TUND, Lab


def pytest_configure(config):
    # A terminated run cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if os.geteuid() != 0:
        pytest.exit("the namespace tests make network namespaces: run them as root", returncode=1)


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
