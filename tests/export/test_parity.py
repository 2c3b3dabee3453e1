"""The comparison with transformers: it must be able to fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from deepfake_deploy.export import ExportError, Precision
from deepfake_deploy.export.checkpoint import Checkpoint, load_model, load_processor
from deepfake_deploy.export.parity import Parity, measure_parity, varied_images

from tests.support.exports import load_exported

GOOD = Parity(
    images=16,
    batch_sizes=(1, 2, 5, 8),
    device="cpu",
    max_logit_difference=1e-6,
    max_probability_difference=1e-6,
    label_changes=0,
    decided_label_changes=0,
)


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        (Precision.FP32, {"max_logit_difference": 1.1e-4}),
        (Precision.FP32, {"max_logit_difference": float("nan")}),
        (Precision.BF16, {"max_probability_difference": 0.021}),
        (Precision.BF16, {"max_probability_difference": float("nan")}),
        (Precision.FP16, {"decided_label_changes": 1}),
    ],
)
def test_a_difference_over_the_limit_is_refused(precision: Precision, change: dict[str, float]) -> None:
    GOOD.require(precision)
    with pytest.raises(ExportError, match="differs from transformers"):
        dataclasses.replace(GOOD, **change).require(precision)


def test_half_precision_may_change_a_label_that_was_a_toss_up() -> None:
    dataclasses.replace(GOOD, label_changes=1, max_logit_difference=0.1).require(Precision.BF16)


@pytest.fixture(scope="module")
def small(checkpoint: Path) -> Checkpoint:
    return Checkpoint("small", None, checkpoint)


def measure(module: object, small: Checkpoint) -> Parity:
    return measure_parity(module, load_model(small), load_processor(small), torch.device("cpu"), lambda: None)  # type: ignore[arg-type]


def test_swapped_outputs_are_seen(repository: Path, small: Checkpoint) -> None:
    module = load_exported(repository)
    swapped = measure(lambda pixels: tuple(tensor.flip(-1) for tensor in module(pixels)), small)
    assert swapped.label_changes == swapped.images == 16
    assert swapped.decided_label_changes > 0
    assert swapped.max_logit_difference > 1e-2


def test_another_order_of_the_channels_is_seen(repository: Path, small: Checkpoint) -> None:
    module = load_exported(repository)
    assert measure(module, small).max_logit_difference < 1e-5
    assert measure(lambda pixels: module(pixels.flip(-1)), small).max_logit_difference > 1e-4


def test_answers_of_other_images_in_the_batch_are_seen(repository: Path, small: Checkpoint) -> None:
    module = load_exported(repository)
    assert measure(lambda pixels: tuple(t.roll(1, 0) for t in module(pixels)), small).max_logit_difference > 1e-4


def test_the_images_compared_are_all_different() -> None:
    images = [(image.mode, image.size, image.tobytes()) for image in varied_images(16)]
    assert len(set(images)) == 16
    assert {mode for mode, _, _ in images} == {"RGB", "L", "RGBA", "P", "CMYK"}
