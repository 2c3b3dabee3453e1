"""Locust as a process of its own, and what it reports."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.project import ROOT

DEADLINE_SECONDS = 60


@dataclass(frozen=True)
class LocustRun:
    """What a run left behind."""

    status: int
    stderr: str
    verdict: str
    """The line that says whether it passed, without its prefix; empty when there is none."""
    requests: dict[tuple[str, str], int]
    """Requests by (protocol, name)."""
    failures: dict[str, int]
    """Failures by cause."""


def run_locust(folder: Path | None, *arguments: str) -> LocustRun:
    """Runs the locustfile headless; its tables are written to `folder`, or nowhere."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless"]
    done = subprocess.run(
        [*command, "--only-summary", *(["--csv", str(folder / "run")] if folder else []), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    verdicts = [line for line in done.stderr.splitlines() if line.startswith("loadtest: ")]
    rows = _rows(folder, "run_stats.csv")
    failures: dict[str, int] = {}
    for row in _rows(folder, "run_failures.csv"):
        failures[row["Error"]] = failures.get(row["Error"], 0) + int(row["Occurrences"])
    return LocustRun(
        status=done.returncode,
        stderr=done.stderr,
        verdict=verdicts[-1].removeprefix("loadtest: ") if verdicts else "",
        requests={(row["Type"], row["Name"]): int(row["Request Count"]) for row in rows if row["Type"]},
        failures=failures,
    )


def _rows(folder: Path | None, name: str) -> list[dict[str, str]]:
    if folder is None or not (folder / name).exists():
        return []
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))
