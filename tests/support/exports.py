"""Helping hands for tests that export."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from deepfake_deploy.export import Precision, export_model
from deepfake_deploy.export.torchscript import deserialise

from tests.support.project import ROOT


class SilentProgress:
    """An export's progress, shown to nobody."""

    def step(self, description: str) -> None: ...

    def advance(self) -> None: ...


def exported_files(repository: Path) -> tuple[Path, Path]:
    """model.pt and provenance.json of a repository."""
    folder = repository / "deepfake_vs_real" / "1"
    return folder / "model.pt", folder / "provenance.json"


def load_exported(repository: Path) -> torch.jit.ScriptModule:
    """The exported module, on the CPU."""
    return deserialise(exported_files(repository)[0].read_bytes(), torch.device("cpu"))


def exported_repository(checkpoint: Path, folder: Path, precision: Precision = Precision.FP32) -> Path:
    """The project's model repository below `folder`, with the checkpoint exported."""
    repository = copy_repository(folder / "model_repository")
    export_model(str(checkpoint), None, precision, repository, SilentProgress())
    return repository


def copy_repository(target: Path) -> Path:
    """A copy of model_repository/ without the weights that somebody may have exported into it."""

    def exported(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder).name == "deepfake_vs_real" and name.lstrip(".")[0].isdigit()]

    return Path(shutil.copytree(ROOT / "model_repository", target, ignore=exported))
