"""The figures of a calibration, against scipy, scikit-learn and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from deepfake_client import DecisionPolicy
from deepfake_evaluation import InputError
from deepfake_evaluation.measures import allowed_errors, images_needed, upper_bound
from deepfake_evaluation.policy import choose_thresholds, fit_temperature, require_enough
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import beta, binom
from sklearn.metrics import log_loss


def overconfident(images: int, seed: int, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that are `factor` times too large, and truths that come true by the right ones."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(0, 2, images)
    return log_odds * factor, random.random(images) < expit(log_odds)


@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_has_the_lowest_log_loss(seed: int) -> None:
    log_odds, truth = overconfident(500, seed)
    temperature, note = fit_temperature(log_odds, truth)
    best = minimize_scalar(
        lambda temperature: log_loss(truth, expit(log_odds / temperature)), bounds=(0.05, 50), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    assert temperature == pytest.approx(best.x, rel=1e-5)
    assert note is None


def test_a_model_that_is_three_times_too_sure_is_found_out() -> None:
    assert fit_temperature(*overconfident(20_000, 7))[0] == pytest.approx(3, rel=0.05)


def test_images_that_are_all_right_do_not_make_a_certainty() -> None:
    truth = np.arange(40) < 20
    log_odds = np.where(truth, 1.0, -1.0) * np.random.default_rng(0).uniform(4, 6, 40)
    temperature, note = fit_temperature(log_odds, truth)
    assert "every label is right" in note
    confidence = np.mean(expit(np.abs(log_odds) / temperature))
    assert confidence == pytest.approx(21 / 22, abs=0.01)  # the rule of succession for twenty of each
    # With more of the same the confidence grows, and stays bounded.
    more, _ = fit_temperature(np.tile(log_odds, 50), np.tile(truth, 50))
    assert 0.01 < more < temperature


def test_the_largest_scores_there_are_do_not_overflow() -> None:
    truth = np.arange(1000) < 500
    log_odds = np.where(truth, 87.4, -87.4)
    assert np.isfinite(fit_temperature(log_odds, truth)[0])
    log_odds[0] = -87.4
    assert 1 < fit_temperature(log_odds, truth)[0] < 100


def test_scores_that_say_nothing_or_the_opposite_are_told() -> None:
    log_odds, truth = overconfident(500, 1)
    temperature, note = fit_temperature(-log_odds, truth)
    assert temperature == 100
    assert "the opposite" in note
    assert fit_temperature(np.zeros(10), np.arange(10) < 5)[0] == 100


@pytest.mark.parametrize(("errors", "images"), [(0, 20), (0, 299), (1, 500), (7, 90), (499, 500)])
def test_the_bound_is_the_rate_at_which_so_few_errors_have_five_per_cent(errors: int, images: int) -> None:
    assert binom.cdf(errors, images, upper_bound(errors, images)) == pytest.approx(0.05)
    assert upper_bound(images, images) == 1


def test_one_per_cent_needs_299_images_without_an_error() -> None:
    assert images_needed(0.01) == 299
    assert (allowed_errors(298, 0.01), allowed_errors(299, 0.01)) == (-1, 0)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("images", [10, 59, 299, 473, 3000, 100_000])
def test_as_many_errors_are_allowed_as_the_bound_permits(images: int, rate: float) -> None:
    allowed = allowed_errors(images, rate)
    assert allowed < 0 or upper_bound(allowed, images) <= rate
    assert upper_bound(allowed + 1, images) > rate


def test_too_few_images_are_refused_with_both_ways_out() -> None:
    require_enough("Real one", 299, 0.01)
    with pytest.raises(InputError, match=r"20 images of «Real one».*299 are needed.*--false-positive-rate 0\.1392"):
        require_enough("Real one", 20, 0.01)
    require_enough("Real one", 20, 0.1392)
    with pytest.raises(InputError, match="0 images"):
        require_enough("Deepfake", 0, 0.5)


def test_in_nineteen_of_twenty_calibrations_the_true_rate_is_kept() -> None:
    random = np.random.default_rng(0)
    kept = []
    for _ in range(400):
        photos, deepfakes = random.beta(2, 4, 400), random.beta(4, 2, 400)
        truth = np.arange(800) >= 400
        upper, lower = choose_thresholds(np.concatenate([photos, deepfakes]), truth, 0.05)
        kept += [beta.sf(upper, 2, 4) <= 0.05, beta.cdf(lower, 4, 2) <= 0.05]
    assert np.mean(kept) > 0.93


def test_the_thresholds_take_as_many_errors_as_are_allowed_and_no_more() -> None:
    random = np.random.default_rng(1)
    probabilities, truth = random.random(2000), np.arange(2000) < 1000
    upper, lower = choose_thresholds(probabilities, truth, 0.05)
    assert np.sum(probabilities[~truth] >= upper) == allowed_errors(1000, 0.05)
    assert np.sum(probabilities[truth] <= lower) == allowed_errors(1000, 0.05)
    assert 0 < lower < 0.5 < upper < 1


def test_between_two_kinds_that_never_meet_nothing_is_decided() -> None:
    probabilities = np.concatenate([np.linspace(0.02, 0.11, 100), np.linspace(0.89, 0.98, 100)])
    upper, lower = choose_thresholds(probabilities, np.arange(200) >= 100, 0.05)
    assert (upper, lower) == (0.89, 0.11)


def test_with_errors_to_spare_the_thresholds_do_not_cross() -> None:
    probabilities = np.concatenate([np.linspace(0.02, 0.11, 100), np.linspace(0.89, 0.98, 100)])
    upper, lower = choose_thresholds(probabilities, np.arange(200) >= 100, 0.3)
    assert lower < 0.5 < upper


def test_a_decision_never_contradicts_the_label() -> None:
    # A model that puts every image under one half, though in the right order.
    probabilities = np.concatenate([np.linspace(0.0, 0.1, 100), np.linspace(0.2, 0.4, 100)])
    upper, lower = choose_thresholds(probabilities, np.arange(200) >= 100, 0.05)
    assert upper == 0.5
    assert lower <= 0.1
    # Photos at one half exactly, whose label is the first one.
    ties = np.concatenate([np.full(100, 0.5), np.full(100, 0.6)])
    upper, lower = choose_thresholds(ties, np.arange(200) >= 100, 0.05)
    assert DecisionPolicy(1.0, upper, lower).decide({"Deepfake": 0.5, "Real one": 0.5}) != "Real one"


def test_a_kind_that_cannot_be_told_is_never_decided() -> None:
    probabilities = np.ones(200)
    assert choose_thresholds(probabilities, np.arange(200) >= 100, 0.05) == (None, None)
