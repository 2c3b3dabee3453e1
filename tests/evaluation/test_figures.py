"""Confidence intervals, reliability and damages, against published values, definitions and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from deepfake_evaluation.measures import area_under_roc, expected_calibration_error, proportion
from deepfake_evaluation.robustness import DAMAGES
from PIL import Image

from tests.support.pictures import photo_like


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_proportion_is_wilsons(hits: int, total: int, low: float, high: float) -> None:
    found = proportion(hits, total)
    assert found.value == hits / total
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_the_interval_of_a_proportion_ends_at_nought_and_one() -> None:
    assert proportion(0, 7).low == 0
    assert proportion(7, 7).high == 1


def test_ties_count_half_in_the_auc() -> None:
    random = np.random.default_rng(1)
    truth = random.random(150) < 0.4
    scores = np.round((random.normal(0, 1, 150) + truth) * 2) / 2
    # By the definition: each pair of a positive and a negative image counts 1, or ½ when they tie.
    pairs = np.sign(scores[truth][:, np.newaxis] - scores[~truth][np.newaxis]) / 2 + 0.5
    assert area_under_roc(truth, scores).value == pytest.approx(pairs.mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("positives", "negatives", "shift"), [(24, 24, 1.0), (24, 24, 3.0), (50, 50, 4.0), (20, 200, 2)]
)
def test_the_interval_of_the_auc_covers_the_true_one_about_95_times_in_a_hundred(
    positives: int, negatives: int, shift: float
) -> None:
    # Two normal distributions `shift` apart have the area Φ(shift / √2); the last two are 0.9977 and 0.9214.
    true = float(np.mean(np.random.default_rng(0).normal(shift, np.sqrt(2), 2_000_000) > 0))
    random, runs = np.random.default_rng(7), 400
    truth = np.arange(positives + negatives) < positives
    covered = 0
    for _ in range(runs):
        found = area_under_roc(truth, (random.normal(0, 1, len(truth)) + shift * truth).astype(np.float32))
        covered += found.low <= true <= found.high
    assert 0.90 <= covered / runs <= 0.995


@pytest.mark.parametrize("count", [1, 24, 4000])
def test_a_perfect_separation_leaves_room_for_doubt_and_less_with_more_images(count: int) -> None:
    truth = np.arange(2 * count) < count
    found, opposite = (
        area_under_roc(truth, truth.astype(np.float32)),
        area_under_roc(truth, (~truth).astype(np.float32)),
    )
    assert (found.value, found.high) == (1, 1)
    assert (opposite.value, opposite.low) == (0, 0)
    expected = {1: 0.2065, 24: 0.9158, 4000: 0.9994}[count]
    assert found.low == pytest.approx(expected, abs=2e-3)
    assert opposite.high == pytest.approx(1 - expected, abs=2e-3)


def test_scores_that_are_all_equal_say_nothing() -> None:
    found = area_under_roc(np.arange(20) < 10, np.full(20, 0.5, np.float32))
    assert found.value == 0.5
    assert found.low < 0.35 < 0.65 < found.high


def test_the_calibration_error_of_a_handful_of_scores_by_hand() -> None:
    scores = np.array([0.05, 0.05, 0.95, 0.95, 1.0], np.float64)
    truth = np.array([False, True, True, True, True])
    found = expected_calibration_error(truth, scores)
    assert found == pytest.approx((2 * 0.45 + 3 * (1 - 2.9 / 3)) / 5)


def test_calibrated_scores_have_next_to_no_calibration_error() -> None:
    random = np.random.default_rng(3)
    scores = random.random(200_000)
    assert expected_calibration_error(random.random(200_000) < scores, scores) < 0.01


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
@pytest.mark.parametrize("size", [(320, 200), (200, 321), (1, 1), (1, 300)])
def test_a_damage_changes_the_image_and_does_so_the_same_way_each_time(damage: object, size: tuple[int, int]) -> None:
    image = photo_like(*size, seed=5)
    before = image.tobytes()
    first, second = damage.apply(image), damage.apply(image)
    assert first.mode == "RGB"
    assert (first.size, first.tobytes()) == (second.size, second.tobytes())
    assert image.tobytes() == before
    if min(size) > 1:
        assert (first.size, first.tobytes()) != (image.size, before)


def test_the_sizes_and_strengths_of_the_damages_are_as_they_are_described() -> None:
    image = photo_like(400, 200, seed=6)
    damaged = {damage.name: damage.apply(image) for damage in DAMAGES}
    sizes = {name: each.size for name, each in damaged.items() if each.size != image.size}
    assert sizes == {"scale ×0.5": (200, 100), "scale ×0.25": (100, 50), "crop": (320, 160), "screenshot": (1080, 540)}

    def error(name: str) -> float:
        return float(np.sqrt(np.mean((np.asarray(damaged[name], float) - np.asarray(image, float)) ** 2)))

    assert 9 < error("noise") < 10.5
    assert error("JPEG 95") < error("JPEG 75") < error("JPEG 50") < error("JPEG 30")
    assert damaged["crop"].tobytes() == image.crop((40, 20, 360, 180)).tobytes()


def test_the_noise_of_two_images_differs_and_is_the_same_in_every_strip() -> None:
    noisy = next(damage.apply for damage in DAMAGES if damage.name == "noise")
    grey = Image.new("RGB", (50, 600), (128, 128, 128))
    noise = np.asarray(noisy(grey), float) - 128
    assert noise.std() == pytest.approx(10, abs=0.2)
    assert not np.array_equal(noise[:256], noise[256:512])
    other = np.asarray(noisy(Image.new("RGB", (50, 600), (129, 128, 128))), float)
    assert np.abs(other[..., 1] - 128 - noise[..., 1]).max() > 5
