"""What all servers are given: one checkpoint, its exports for Triton, and images with the scores that transformers gives."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deepfake_deploy.export import (
    FIRST_VERSION,
    MODEL_FILE,
    MODEL_NAME,
    PROVENANCE_FILE,
    Precision,
    export_model,
)
from deepfake_deploy.export.checkpoint import Checkpoint, open_checkpoint, sha256_of, weight_files
from deepfake_deploy.export.contract import read_labels
from deepfake_evaluation.reference import open_reference
from PIL import Image

from loadtests.studies.model_speed.silence import Silent
from loadtests.traffic.known_answers import drawn

from .closed_loop import KnownImage


@dataclass(frozen=True, slots=True)
class Prepared:
    """For processes that must not load torch themselves."""

    model_id: str
    repositories: dict[str, Path]
    """Model repository by precision."""
    known: tuple[KnownImage, ...]


@contextmanager
def checkpoint_of(model: str, repository: Path) -> Iterator[Checkpoint]:
    """The checkpoint that a folder, a Hub id or "stand-in" names, for as long as the servers need it.

    Raises:
        ExportError: it cannot be had.
    """
    with open_checkpoint(model, None, read_labels(repository), Silent()) as checkpoint:
        yield checkpoint


def prepare(checkpoint: Checkpoint, repository: Path, precisions: Sequence[str], folder: Path) -> Prepared:
    """Exports the checkpoint in each precision and asks transformers for the known scores.

    A model that `repository` already has of the same weights, precision and versions is taken from there.

    Raises:
        ExportError: the checkpoint does not fit.
    """
    repositories = {}
    for precision in precisions:
        target = folder / precision
        shutil.copytree(repository, target, ignore=_without_versions)
        if not _take(repository, target, checkpoint, precision):
            export_model(str(checkpoint.folder), None, Precision(precision), target, Silent())
        repositories[precision] = target
    labels = read_labels(repository)
    known = []
    with open_reference(str(checkpoint.folder), None, labels, Silent()) as reference:
        path = folder / "known.jpg"
        for png in drawn():
            buffer = io.BytesIO()
            Image.open(io.BytesIO(png)).save(buffer, "JPEG", quality=90)
            path.write_bytes(buffer.getvalue())
            known.append(KnownImage(buffer.getvalue(), dict(zip(labels, reference.probabilities(path), strict=True))))
    return Prepared(checkpoint.model_id, repositories, tuple(known))


def _take(repository: Path, target: Path, checkpoint: Checkpoint, precision: str) -> bool:
    """Whether the repository's own export is the one that would be made; then it is linked or copied."""
    import torch

    source = repository / MODEL_NAME / str(FIRST_VERSION)
    try:
        provenance = json.loads((source / PROVENANCE_FILE).read_text())
    except (OSError, ValueError):
        return False
    wanted = {
        "weights_sha256": {path.name: sha256_of(path) for path in weight_files(checkpoint)},
        "precision": precision,
        "torch_version": torch.__version__,
    }
    if any(provenance.get(key) != value for key, value in wanted.items()):
        return False
    if provenance.get("model_pt_sha256") != sha256_of(source / MODEL_FILE):
        return False
    version = target / MODEL_NAME / str(FIRST_VERSION)
    version.mkdir()
    for name in (MODEL_FILE, PROVENANCE_FILE):
        try:
            os.link(source / name, version / name)
        except OSError:  # another file system
            shutil.copyfile(source / name, version / name)
    return True


def _without_versions(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder).name == MODEL_NAME and name.lstrip(".")[:1].isdigit()]
