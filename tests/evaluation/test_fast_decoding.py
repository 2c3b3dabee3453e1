"""What `decoding="fast"` does to the verdicts of a checkpoint that has learned something, and to an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from deepfake_client import DeepfakeClient
from deepfake_client.preprocessing import Decoding, load_image, to_pixels
from deepfake_deploy.embedded import EmbeddedTriton
from PIL import Image

from tests.support.checkpoints import LABELS
from tests.support.commands import deepfake, evaluate
from tests.support.exports import load_exported
from tests.support.pictures import encoded, photo_like

pytestmark = pytest.mark.usefixtures("one_thread")
CAMERA = (4000, 3000)


def probabilities(module: torch.jit.ScriptModule, photos: list[bytes], decoding: Decoding) -> np.ndarray:
    pixels = np.stack([to_pixels(load_image(photo, decoding=decoding)) for photo in photos])
    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(pixels))[0])


def test_photos_of_twelve_megapixels_keep_their_labels_and_nearly_their_scores(
    labelled_faces: Path, trained_repository: Path
) -> None:
    module = load_exported(trained_repository)
    files = [path for label in LABELS for path in sorted((labelled_faces / label).glob("*.jpg"))[:4]]
    camera = [encoded(Image.open(path).resize(CAMERA), "JPEG", quality=90) for path in files]
    exact, fast = (probabilities(module, camera, decoding) for decoding in ("exact", "fast"))
    np.testing.assert_array_equal(fast.argmax(1), exact.argmax(1))
    assert set(exact.argmax(1)) == {0, 1}
    assert 0 < np.abs(fast - exact).max() < 0.01
    small = [path.read_bytes() for path in files]
    np.testing.assert_array_equal(probabilities(module, small, "fast"), probabilities(module, small, "exact"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A large JPEG and a small one of each label."""
    for seed, label in enumerate(LABELS):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for name, size in (("large.jpg", (1400, 1000)), ("small.jpg", (300, 200))):
            (tmp_path / "photos" / label / name).write_bytes(encoded(photo_like(*size, seed), "JPEG"))
    return tmp_path / "photos"


def test_the_commands_decode_as_they_are_told(trained_triton: EmbeddedTriton, photos: Path) -> None:
    photo = str(photos / LABELS[0] / "large.jpg")
    for decoding in ("exact", "fast"):
        with DeepfakeClient(trained_triton.grpc_url, decoding=decoding) as client:
            scores = client.classify(photo).scores
        run = deepfake("classify", photo, "--url", trained_triton.grpc_url, "--format", "jsonl", "--decoding", decoding)
        assert json.loads(run.stdout)["scores"] == scores
    run = deepfake("classify", photo, "--decoding", "server")
    assert run.exit_code == 2
    assert "'server' is not one of 'exact', 'fast'" in run.stderr
    for command in ("evaluate", "calibrate", "page"):
        assert "--decoding [exact|fast]" in deepfake(command, "--help").stdout


@pytest.mark.slow
def test_an_evaluation_tells_how_it_decoded(trained_triton: EmbeddedTriton, photos: Path, tmp_path: Path) -> None:
    told = "Images were decoded with --decoding fast"
    for decoding in ("exact", "fast"):
        output = tmp_path / decoding
        run = evaluate(photos, "--url", trained_triton.grpc_url, "--output", output, "--decoding", decoding)
        assert run.exit_code == 0, run.stderr
        assert (told in run.stdout) == (decoding == "fast")
        assert json.loads((output / "report.json").read_text()).get("decoding", "exact") == decoding
