"""These tests need a kernel that has sit: `make test-sit` runs them on one. On others nothing of this directory is collected."""

from pathlib import Path

import report

KERNEL_HAS_SIT = Path("/sys/module/sit").exists()
if not KERNEL_HAS_SIT:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header():
    return None if KERNEL_HAS_SIT else "netns-tests/sit is left out: no sit is loaded; `make test-sit` brings one"


def pytest_terminal_summary(terminalreporter):
    if report.cases:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(report.intended.items()))
        terminalreporter.write_line(
            f"differential test: {report.cases} generated cases, SEED={report.seed};"
            f" {report.intended.total()} intended differences ({kinds or 'none'}); {report.unintended} unintended ones")
