"""The images, as far as they can be known without building them, and the server's entrypoint."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.project import ROOT

DOCKER = ROOT / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
CHECK = runpy.run_path(str(DOCKER / "check_image.py"))
TIMEOUT_SECONDS = 60


def stages() -> dict[str, str]:
    """Stage → its instructions."""
    parts = re.split(r"^FROM (?:\S+) AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_hadolint_finds_nothing() -> None:
    run = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(DOCKER / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_every_copied_path_exists_and_reaches_the_builder() -> None:
    sources = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", DOCKERFILE, re.MULTILINE)
    paths = sorted({path for line in sources for path in line.split()})
    assert "deploy/docker/entrypoint.sh" in paths
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    admitted = {line[1:] for line in ignored if line.startswith("!")}
    for path in paths:
        assert (ROOT / path).exists(), path
        assert any(path == open_path or path.startswith(f"{open_path}/") for open_path in admitted), path


def test_weights_of_the_working_copy_are_not_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    # The last line that matches decides, so it must come after the folder was let in.
    assert lines.index("model_repository/deepfake_vs_real/[0-9]*") > lines.index("!model_repository")


def test_torchscript_is_written_by_a_torch_no_newer_than_the_containers() -> None:
    # https://docs.nvidia.com/deeplearning/triton-inference-server/release-notes: 26.08 has 2.14.
    assert "TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.08-pyt-python-py3\n" in DOCKERFILE
    (pinned,) = re.findall(r'^export = .*"torch==(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert tuple(map(int, pinned)) <= (2, 14)
    assert "torch==" not in (DOCKER / "constraints.txt").read_text()


def test_versions_are_fixed() -> None:
    lines = [line for line in (DOCKER / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines)
    assert {"numpy", "pillow"} <= {line.split("==")[0] for line in lines}
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.12\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_the_server_gets_pillow_and_the_client_beside_what_apt_and_nvidia_installed() -> None:
    (command,) = re.findall(r"python3 -m pip install (.+?) \\?\n *&&", stages()["runtime"], re.DOTALL)
    assert command.replace("\\\n", "").split() == [
        "--no-cache-dir",
        "--break-system-packages",
        "--ignore-installed",
        "--no-deps",
        "--constraint",
        "/deploy/docker/constraints.txt",
        "pillow",
        "/wheels/*.whl",
    ]


def test_the_image_carries_this_projects_version() -> None:
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"ARG VERSION={version}\n" in stages()["runtime"]


def test_what_runs_in_the_cluster_is_no_root() -> None:
    for stage in ("runtime", "loadtest"):
        assert re.findall(r"^USER (\S+)$", stages()[stage], re.MULTILINE)[-1] == "1000:1000"
    assert "USER" not in stages()["server"]


def test_the_server_and_the_model_say_where_the_weights_come_from() -> None:
    for stage in ("server", "model"):
        for name in ("model", "revision", "precision"):
            assert f'deepfake-vs-real.{name}="${{{name.upper()}}}"' in stages()[stage]


def test_the_container_alone_is_as_closed_as_the_pod() -> None:
    """Whatever `docker run` starts with, the pod is given too."""
    deployment = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / "triton-deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (command,) = re.findall(r"^CMD (\[.*?\])", stages()["runtime"].replace("\\\n", ""), re.MULTILINE)
    assert set(json.loads(command)) <= set(container["args"])
    assert {flag for flag in json.loads(command) if "restricted" in flag} == {
        flag for flag in container["args"] if "restricted" in flag
    }


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """What of NVIDIA's /opt/tritonserver the check looks at."""
    for part in CHECK["PARTS"]:
        (tmp_path / part).parent.mkdir(parents=True)
        (tmp_path / part).touch()
    return tmp_path


def problems(container: Path, usage: str, python: tuple[int, int] = (3, 12), numpy: str = "1.26.4") -> list[str]:
    return list(CHECK["problems"](container, ROOT / "deploy" / "kubernetes", usage, python, numpy))


def usage_of_every_argument() -> str:
    manifests = (path.read_text() for path in ROOT.glob("deploy/kubernetes/**/triton-*.yaml"))
    return "\n".join(f"  {flag} <string>" for text in manifests for flag in re.findall(r"--[a-z][\w-]+", text))


def test_a_container_as_the_manifests_expect_it_is_built_upon(container: Path) -> None:
    assert problems(container, usage_of_every_argument()) == []


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("backends/pytorch/libtriton_pytorch.so", "the LibTorch backend"),
        ("backends/python/triton_python_backend_stub", "the Python backend's stub"),
        ("caches/local/libtritoncache_local.so", "the response cache"),
    ],
)
def test_a_part_that_is_missing_fails_the_build(container: Path, part: str, what: str) -> None:
    (container / part).unlink()
    assert problems(container, usage_of_every_argument()) == [f"{container / part} is not there: {what}"]


def test_another_python_or_numpy_fails_the_build(container: Path) -> None:
    assert problems(container, usage_of_every_argument(), (3, 13), "2.0.1") == [
        "Python is 3.13, not 3.12",
        "numpy is 2.0.1: the Python backend needs one below 2",
    ]


def test_an_argument_that_the_server_does_not_know_fails_the_build(container: Path) -> None:
    usage = usage_of_every_argument().replace("--strict-readiness ", "--strict ").replace("--model-config-name ", "")
    assert problems(container, usage) == [
        "tritonserver does not know --strict-readiness of base/triton-deployment.yaml",
        "tritonserver does not know --model-config-name of overlays/cpu/triton-cpu-patch.yaml",
    ]


def test_the_check_is_run_in_the_image_that_serves() -> None:
    assert "&& python3 /deploy/docker/check_image.py /deploy/kubernetes\n" in stages()["runtime"]
    assert "--mount=type=bind,source=deploy,target=/deploy" in stages()["runtime"]
    assert "!deploy/kubernetes" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH whose tritonserver prints its arguments, one a line."""
    program = tmp_path / "tritonserver"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def passed_on(path: str, *given: str) -> list[str]:
    """What the entrypoint makes of its arguments."""
    command = [str(DOCKER / "entrypoint.sh"), *given]
    run = subprocess.run(
        command, env={"PATH": path}, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True
    )
    return run.stdout.splitlines()


def test_keys_are_drawn_anew_at_each_start(path: str) -> None:
    given = ["--http-restricted-api=trace:closed=@random", "--grpc-restricted-protocol=trace:closed=@random"]
    keys = set()
    for _ in range(2):
        found = [re.fullmatch(r"--\S+:closed=([0-9a-f-]{36})", each) for each in passed_on(path, *given)]
        assert all(found)
        keys |= {match[1] for match in found if match}
    assert len(keys) == 2


def test_other_arguments_pass_unchanged_and_in_order(path: str) -> None:
    given = ["--a=1", "--b=two words", "--c=$(id)", "*", "--d=@randomly", ""]
    assert passed_on(path, *given) == given
