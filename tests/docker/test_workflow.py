"""The workflow for whoever hosts the project: what it may do, and that what it calls is there."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT

FILES = sorted(ROOT.glob(".github/workflows/*.yml"))
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
SCRIPT = ROOT / "deploy" / "kubernetes" / "try_in_kind.sh"


def test_actions_are_pinned_by_commit_and_their_version_is_told() -> None:
    used = [line for path in FILES for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line), line


def test_images_are_pinned_by_digest() -> None:
    for job in WORKFLOW["jobs"].values():
        if container := job.get("container"):
            assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"])
            assert f"ARG PYTHON_IMAGE={container['image']}\n" in (ROOT / "deploy/docker/Dockerfile").read_text()


def test_it_may_only_read_and_ends_in_time() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    for job in WORKFLOW["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 120
        checkout = job["steps"][0]
        assert checkout["with"] == {"persist-credentials": False}


def test_what_it_runs_is_there_and_no_text_of_strangers_is_pasted_into_it() -> None:
    runs = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    assert ".ci/run" in runs
    assert str(SCRIPT.relative_to(ROOT)) in runs
    for program in (ROOT / ".ci" / "run", SCRIPT):
        assert os.access(program, os.X_OK)
    assert not any("${{" in run for run in runs)
    called = re.findall(r"\bmake ([a-z-]+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert {"lint", "test-all"} <= set(called)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(called) <= set(targets)


@pytest.mark.parametrize("asked", ["grpc://triton-headless.deepfake.svc:8001", "http://triton.deepfake.svc:8000"])
def test_the_cluster_is_asked_at_services_that_exist(asked: str) -> None:
    name, port = re.findall(r"//([a-z-]+)\.deepfake\.svc:(\d+)", asked)[0]
    assert f"={asked}\n" in SCRIPT.read_text()
    service = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / f"{name}-service.yaml").read_text())
    assert int(port) in {each["port"] for each in service["spec"]["ports"]}


def test_the_clusters_script_is_bash() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    compile(SCRIPT.read_text().split("<<'CALLS' &\n")[1].split("\nCALLS\n")[0], "calls", "exec")
