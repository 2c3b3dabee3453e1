"""What the embedded Triton sets for torch in its backend's process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT, server_environment
from deepfake_deploy.embedded.installation import find_installation, usable_cpus


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


@pytest.mark.parametrize("name", TORCH_ENVIRONMENT)
def test_what_the_operator_sets_is_left_alone(name: str) -> None:
    installation = find_installation()
    assert server_environment(installation, {})[name] == TORCH_ENVIRONMENT[name]
    assert server_environment(installation, {name: "other"})[name] == "other"


def test_the_backend_runs_with_it(triton: EmbeddedTriton) -> None:
    stubs = psutil.Process(triton.pid).children(recursive=True)
    assert stubs
    for process in stubs:
        environment = process.environ()
        assert {name: environment[name] for name in TORCH_ENVIRONMENT} == TORCH_ENVIRONMENT


def test_glibc_keeps_the_memory_of_one_pass_for_the_next() -> None:
    assert page_faults(TORCH_ENVIRONMENT) < 0.5 * page_faults({})


def page_faults(environment: dict[str, str]) -> int:
    """Of a process that twenty times takes and frees as much memory as a forward pass."""
    code = (
        "import resource\n"
        "for _ in range(20):\n"
        "    blocks = [bytearray(16 << 20) for _ in range(4)]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={**kept, **environment})
    return int(run.stdout)
