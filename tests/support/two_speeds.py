"""Two speeds: `make test` runs what answers quickly, `make test-all` the tests marked `slow` as well."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import Any

import pytest

SLOW_SECONDS = 5.0
_LEFT_OUT = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that takes long and is not marked fails, or `make test` would grow slow unseen."""
    report = yield
    # On a machine that has other things to do as well, a test takes the longer for it.
    allowed = SLOW_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    if (
        report.when == "call"
        and report.passed
        and report.duration > allowed
        and item.get_closest_marker("slow") is None
    ):
        report.outcome = "failed"
        report.longrepr = f"took {report.duration:.1f} s: make it faster, or mark it with @pytest.mark.slow"
    return report


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Counts what `-m` left out; in each worker where tests run in several processes, which all leave out the same."""
    if items:
        config = items[0].config
        config.stash[_LEFT_OUT] = config.stash.get(_LEFT_OUT, 0) + len(items)
        if hasattr(config, "workeroutput"):
            config.workeroutput["left_out"] = config.stash[_LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over a worker's count."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many of how many tests ran."""
    if terminalreporter.config.option.collectonly:
        return
    passed, failed, errors, skipped = (
        len(terminalreporter.stats.get(outcome, [])) for outcome in ("passed", "failed", "error", "skipped")
    )
    left_out = terminalreporter.config.stash.get(_LEFT_OUT, 0)
    ran = passed + failed + errors
    terminalreporter.write_line(
        f"Ran {ran} of {ran + skipped + left_out} tests; {skipped} were skipped for the reasons above, "
        f"{left_out} were left out (`make test-all` has the slow ones)."
    )
