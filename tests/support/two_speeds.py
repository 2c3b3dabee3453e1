"""Two speeds: `make test` runs what answers quickly, `make test-all` the tests marked `slow` as well."""

from __future__ import annotations

from collections.abc import Generator

import pytest

SLOW_SECONDS = 5.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that takes long and is not marked fails, or `make test` would grow slow unseen."""
    report = yield
    if (
        report.when == "call"
        and report.passed
        and report.duration > SLOW_SECONDS
        and not item.get_closest_marker("slow")
    ):
        report.outcome = "failed"
        report.longrepr = f"took {report.duration:.1f} s: make it faster, or mark it with @pytest.mark.slow"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many of how many tests ran."""
    counts = {name: len(terminalreporter.stats.get(name, [])) for name in ("passed", "failed", "error", "skipped")}
    left_out = len(terminalreporter.stats.get("deselected", []))
    ran = counts["passed"] + counts["failed"] + counts["error"]
    total = ran + counts["skipped"] + left_out
    terminalreporter.write_line(
        f"Ran {ran} of {total} tests: {counts['skipped']} skipped for the reasons above, {left_out} left to `make test-all`."
    )
