"""Checkpoints from the Hub: only safetensors are fetched, and what goes wrong is told in a line.

The Hub's address is read when its library is imported, so each of these runs a process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from deepfake_deploy.export import ExportError
from deepfake_deploy.export.checkpoint import download_checkpoint
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from tests.support.exports import exported_files
from tests.support.hub import COMMIT, FakeHub, fake_hub


@pytest.fixture
def hub(checkpoint: Path, tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub whose model also has pickle weights and a program."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "hub"))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    with fake_hub(folder) as server:
        yield server


def export(hub: FakeHub, repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deepfake_cli", "export", "--repository", str(repository), *arguments]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(repository.parent / "cache")}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.slow
def test_a_model_is_exported_at_the_commit_that_its_branch_stands_at(hub: FakeHub, empty_repository: Path) -> None:
    run = export(hub, empty_repository, "--model", "someone/faces", "--precision", "fp32")
    assert run.returncode == 0, run.stderr
    assert "max |Δlogit|" in run.stdout
    assert run.stderr == ""
    provenance = json.loads(exported_files(empty_repository)[1].read_text())
    assert (provenance["model_id"], provenance["revision"]) == ("someone/faces", COMMIT)
    assert hub.requested == {"config.json", "preprocessor_config.json", "model.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize(("resample", "status"), [(2, 0), (3, 1)])
def test_the_image_processor_in_a_whole_processor_is_fetched_and_counts(
    hub: FakeHub, empty_repository: Path, resample: int, status: int
) -> None:
    image_processor = json.loads((hub.folder / "preprocessor_config.json").read_text())
    if resample == 2:
        (hub.folder / "preprocessor_config.json").unlink()
    nested = {"image_processor": {**image_processor, "resample": resample}, "processor_class": "SiglipProcessor"}
    (hub.folder / "processor_config.json").write_text(json.dumps(nested))
    run = export(hub, empty_repository, "--model", "someone/faces", "--precision", "fp32")
    assert run.returncode == status, run.stderr
    assert ("resample is 3 (bicubic)" in run.stderr) == (status == 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "someone/nothing"], "someone/nothing: neither a folder here nor a model on the Hugging Face Hub"),
        (["--model", "someone/faces", "--revision", "v9"], "someone/faces: no revision «v9»"),
    ],
)
def test_an_unknown_id_or_revision(hub: FakeHub, empty_repository: Path, arguments: list[str], expected: str) -> None:
    run = export(hub, empty_repository, *arguments)
    assert (run.returncode, run.stdout) == (1, "")
    assert expected in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_hub_that_is_down(hub: FakeHub, empty_repository: Path) -> None:
    hub.status = 500
    run = export(hub, empty_repository, "--model", "someone/faces")
    assert (run.returncode, run.stdout) == (1, "")
    assert "the Hugging Face Hub cannot be reached" in run.stderr
    assert run.stderr.count("\n") == 1, run.stderr


@pytest.mark.slow
def test_a_download_that_breaks_off(hub: FakeHub, empty_repository: Path) -> None:
    hub.cut = "model.safetensors"
    run = export(hub, empty_repository, "--model", "someone/faces")
    assert (run.returncode, run.stdout) == (1, "")
    assert "someone/faces" in run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert not exported_files(empty_repository)[0].exists()


_FORBIDDEN = httpx.Response(403, request=httpx.Request("GET", "http://hub/someone/faces"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GatedRepoError("gated", response=_FORBIDDEN), "asks you to accept conditions on its page first"),
        (HfHubHTTPError("no", response=_FORBIDDEN), "the download failed: HfHubHTTPError.*run the command again"),
        (OSError(28, "No space left on device"), "the download failed: .*No space left on device"),
    ],
)
def test_what_the_hub_library_raises_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    monkeypatch.setattr("deepfake_deploy.export.checkpoint.snapshot_download", Mock(side_effect=error))
    with pytest.raises(ExportError, match=expected):
        download_checkpoint("someone/faces", None)
