"""What the embedded Triton sets for torch in its backend's process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.command import server_environment
from deepfake_deploy.embedded.installation import usable_cpus
from deepfake_deploy.embedded.installation import find_installation


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("100000 100000", 1), ("150000 100000", 2), ("20000 100000", 1), ("max 100000", 64), ("", 64)],
)
def test_a_container_has_as_many_cpus_as_its_limit_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text(quota)
    assert usable_cpus(cpu_max) == cpus


def test_a_limit_above_the_machine_gives_no_more_than_the_machine(tmp_path: Path) -> None:
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text("6400000 100000")
    assert usable_cpus(cpu_max) == len(os.sched_getaffinity(0))
    assert usable_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))


def test_what_the_operator_sets_is_left_alone() -> None:
    installation = find_installation()
    assert server_environment(installation, {})["OMP_WAIT_POLICY"] == "PASSIVE"
    assert server_environment(installation, {"OMP_WAIT_POLICY": "ACTIVE"})["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_backend_runs_with_it(triton: EmbeddedTriton) -> None:
    for process in psutil.Process(triton.pid).children(recursive=True):
        assert process.environ()["THP_MEM_ALLOC_ENABLE"] == "1"


def test_the_allocator_takes_the_settings() -> None:
    # In a process of its own: the tests' own allocator stays as it is.
    code = (
        "from deepfake_deploy.embedded.allocator import keep_freed_memory as keep; raise SystemExit(0 if keep() else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
