"""What callers get from the served model is what transformers says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from deepfake_client import DeepfakeClient, Verdict
from PIL import Image
from transformers import AutoImageProcessor, SiglipForImageClassification
from transformers.image_utils import load_image

from tests.support.checkpoints import LABELS
from tests.support.pictures import save_varied


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_varied(tmp_path_factory.mktemp("varied"))


@pytest.fixture(scope="module")
def expected(checkpoint: Path, images: list[Path]) -> np.ndarray:
    """(images, 2) probabilities of the model card's own code."""
    return reference_probabilities(checkpoint, images)


def reference_probabilities(checkpoint: Path, images: list[Path]) -> np.ndarray:
    model = SiglipForImageClassification.from_pretrained(checkpoint).eval()
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    probabilities = []
    with torch.inference_mode():
        for path in images:
            with Image.open(path) as image:
                inputs = processor(images=load_image(image), return_tensors="pt")
            probabilities.append(torch.softmax(model(**inputs).logits, dim=1)[0].numpy())
    return np.stack(probabilities)


def test_fifty_varied_images_get_the_scores_that_transformers_gives(
    url: str, images: list[Path], expected: np.ndarray
) -> None:
    assert len(images) == 50
    assert len({row.tobytes() for row in expected}) >= 45  # or a mixed-up answer would go unseen
    assert {int(row.argmax()) for row in expected} == {0, 1}
    with DeepfakeClient(url) as client:
        verdicts = list(client.classify_many(images))
    for path, verdict, row in zip(images, verdicts, expected, strict=True):
        assert isinstance(verdict, Verdict), verdict
        assert verdict.source == str(path)
        assert list(verdict.scores) == LABELS
        np.testing.assert_allclose(list(verdict.scores.values()), row, atol=1e-5, rtol=0, err_msg=path.name)
        assert verdict.label == LABELS[int(row.argmax())]


@pytest.mark.slow
def test_faces_get_the_scores_that_transformers_gives(url: str, faces: Path, checkpoint: Path) -> None:
    paths = sorted(faces.rglob("*.jpg"))
    with DeepfakeClient(url) as client:
        scores = [list(verdict.scores.values()) for verdict in client.classify_many(paths)]
    np.testing.assert_allclose(scores, reference_probabilities(checkpoint, paths), atol=1e-5, rtol=0)
