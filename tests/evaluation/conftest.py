"""What the tests of the evaluation share: a classifier that has learned something, served, and images to judge it by."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from deepfake_client.preprocessing import to_pixels
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.export.reporting import silent_transformers
from PIL import Image
from transformers import SiglipForImageClassification

from tests.support.checkpoints import LABELS, make_checkpoint
from tests.support.exports import exported_repository
from tests.support.pictures import photo_like
from tests.support.servers import running

_EXAMPLES, _STEPS, _BATCH = 300, 60, 16


def face(label: str, seed: int) -> Image.Image:
    """An obvious example of a class: soft blotches, and for a `Deepfake` stripes over them, sometimes faint ones."""
    random = np.random.default_rng(seed)
    width, height = (int(side) for side in random.integers(80, 200, 2))
    pixels = np.asarray(photo_like(width, height, seed), np.float64)
    strength = random.uniform(14, 50) if label == LABELS[0] else random.uniform(0, 8)
    stripes = np.sin(np.arange(width) * 2 * np.pi / 12 + random.uniform(0, 6)) * strength
    return Image.fromarray((pixels * 0.7 + 38 + stripes[np.newaxis, :, np.newaxis]).clip(0, 255).astype(np.uint8))


@contextmanager
def _one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for each other take ten times as long for so small a model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For modules that run small models in this process."""
    with _one_thread():
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint, trained on the spot to tell the two kinds of `face` apart."""
    folder = make_checkpoint(tmp_path_factory.mktemp("trained"))
    examples = [(index % 2, to_pixels(face(LABELS[index % 2], 10_000 + index))) for index in range(_EXAMPLES)]
    pixels = torch.from_numpy(np.stack([each for _, each in examples])).permute(0, 3, 1, 2).float() / 127.5 - 1
    classes = torch.tensor([each for each, _ in examples])
    with _one_thread(), silent_transformers(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = SiglipForImageClassification.from_pretrained(folder).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1.5e-3)
        for _ in range(_STEPS):
            batch = torch.randint(_EXAMPLES, (_BATCH,))
            loss = torch.nn.functional.cross_entropy(model(pixel_values=pixels[batch]).logits, classes[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained_repository(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's model repository with the trained checkpoint in fp32. Not to be changed by a test."""
    return exported_repository(trained, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def trained_triton(trained_repository: Path) -> Iterator[EmbeddedTriton]:
    """A real Triton that serves the trained checkpoint."""
    with running(trained_repository) as server:
        yield server


@pytest.fixture(scope="session")
def labelled_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty images that the checkpoint was not trained on, in folders `Deepfake` and `Real one`. Not to be changed."""
    folder = tmp_path_factory.mktemp("faces")
    for index in range(80):
        label = LABELS[index % 2]
        below = folder / label / ("more" if index % 8 < 2 else "")
        below.mkdir(parents=True, exist_ok=True)
        suffix = ("png", "jpg", "jpg", "webp")[index // 2 % 4]
        face(label, index).save(below / f"{index:03}.{suffix}", quality=90)
    return folder


@pytest.fixture(scope="session")
def few_faces(labelled_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four of them, for what does not depend on their number. Not to be changed."""
    folder = tmp_path_factory.mktemp("few")
    for label in LABELS:
        (folder / label).mkdir()
        for path in sorted((labelled_faces / label).glob("*.*"))[:12]:
            (folder / label / path.name).hardlink_to(path)
    return folder
