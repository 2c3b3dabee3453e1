"""Three of the faults of loadtests/observability/faults.py, for a few minutes of the rules' clock; `make faults` plays them all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import require_program
from tests.support.rules_files import OBSERVABILITY


@pytest.mark.slow
def test_a_killed_worker_a_hanging_model_and_a_killed_server_are_noticed_and_nothing_else_is(repository: Path) -> None:
    require_program("prometheus")
    faults = ["killed-worker", "hanging-decoder", "stopped-server"]
    command = [sys.executable, "-m", "loadtests.observability.faults", "--only", *faults]
    where = ["--repository", str(repository), "--rules", str(OBSERVABILITY)]
    speed = ["--faster", "60", "--settling-minutes", "5", "--watching-minutes", "6"]
    run = subprocess.run([*command, *where, *speed], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    fired = re.findall(r"^ +[\d.]+ s = +[\d.]+ min  (\w+) \((\w+)\)", run.stdout, re.MULTILINE)
    assert sorted(fired) == [
        ("TritonErrorBudgetBurnsFast", "critical"),
        ("TritonModelFails", "warning"),
        ("TritonModelHangs", "critical"),
        ("TritonNoReadyReplica", "critical"),
    ]
    assert run.stdout.count("expected and silent: none; fired and not expected: none") == 3
