"""What the tests share: a small checkpoint, its export, and one real Triton for the session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deepfake_deploy.embedded import EmbeddedTriton
from xdist.scheduler import LoadFileScheduling

from tests.support.checkpoints import make_checkpoint
from tests.support.exports import copy_repository, exported_repository
from tests.support.project import ROOT
from tests.support.servers import running

pytest_plugins = ["tests.support.two_speeds", "pytester"]

# Folders whose tests share what takes long to make.
_TOGETHER = ("tests/kubernetes",)


class _ByFile(LoadFileScheduling):
    """Where tests run in several processes, those of a file stay in one, and those of some folders."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in _TOGETHER if file.startswith(f"{folder}/")), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return _ByFile(config, log)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of the real architecture."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def empty_repository(tmp_path: Path) -> Path:
    """The project's model repository, without weights."""
    return copy_repository(tmp_path / "model_repository")


@pytest.fixture(scope="session")
def repository(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's model repository with the small checkpoint exported in fp32. Not to be changed by a test."""
    return exported_repository(checkpoint, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    """A real Triton that serves the small checkpoint; `grpc_url`, `http_url`, `metrics_url`."""
    with running(repository) as server:
        yield server


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, triton: EmbeddedTriton) -> str:
    """The session's Triton, once over each protocol."""
    return triton.grpc_url if request.param == "grpc" else triton.http_url


@pytest.fixture(scope="session")
def faces() -> Path:
    """A folder of real and generated faces, which the project does not contain."""
    folder = Path(os.environ.get("DEEPFAKE_TEST_FACES", ROOT.parent / "shared" / "images"))
    if not folder.is_dir():
        pytest.skip("no folder of faces; name one with folders `Deepfake` and `Real one` in DEEPFAKE_TEST_FACES")
    return folder
