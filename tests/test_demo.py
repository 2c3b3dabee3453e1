"""`make demo`, but for the installation and the size of the weights."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.exports import exported_files
from tests.support.pictures import encoded, photo_like


def demo(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deepfake_cli", "demo", "--repository", str(repository), *arguments]
    # Port 9 of loopback stands for a Hub that cannot be reached.
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(repository.parent / "cache")}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def verdicts(output: str) -> list[tuple[str, str, str]]:
    """Image, label and percentage of each verdict."""
    return re.findall(r"^  (.+?): (Deepfake|Real one), (\d+\.\d)%", output, re.MULTILINE)


@pytest.mark.slow
def test_without_the_hub_it_goes_on_with_the_stand_in_and_marks_every_verdict(empty_repository: Path) -> None:
    run = demo(empty_repository)
    assert run.returncode == 0, run.stderr
    assert "The Hugging Face Hub cannot be reached, so this goes on with stand-in weights" in run.stderr
    assert json.loads(exported_files(empty_repository)[1].read_text())["weights"] == "stand-in"
    assert len(re.findall("^(grpc|http)://", run.stdout, re.MULTILINE)) == 2
    found = verdicts(run.stdout)
    assert len(found) == 8
    assert found[:4] == found[4:]  # gRPC and HTTP agree
    assert run.stdout.count("[stand-in weights: meaningless]") == 8
    assert "deepfake serve" in run.stdout


@pytest.mark.slow
def test_somebodys_own_weights_and_images_are_used(repository: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(repository, tmp_path / "model_repository"))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encoded(photo_like(320, 240, 5), "JPEG"))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    before = exported_files(own)[0].read_bytes()
    run = demo(own, str(photo), str(tmp_path / "broken.jpg"))
    assert run.returncode == 1  # one of the images got no verdict
    assert [name for name, _, _ in verdicts(run.stdout)] == [str(photo)] * 2
    assert run.stdout.count("broken.jpg: no verdict: ") == 2
    assert "stand-in" not in run.stdout + run.stderr
    assert exported_files(own)[0].read_bytes() == before
