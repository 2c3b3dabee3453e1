"""The one number that makes probabilities of scores: temperature scaling (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from deepfake_client._policy import MAX_TEMPERATURE, MIN_TEMPERATURE
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit


@dataclass(frozen=True)
class TemperatureFit:
    """A temperature, and what a person should know of how it came about, or None."""

    temperature: float
    note: str | None


def fit_temperature(log_odds: NDArray[np.float64], is_deepfake: NDArray[np.bool_]) -> TemperatureFit:
    """The temperature at which the negative log-likelihood of the labels is lowest, from 0.01 to 100.

    In β = 1 / temperature the likelihood of a binary label is that of a logistic regression without intercept, which is
    convex, so that its minimum is where the derivative Σ z (σ(βz) − y) changes sign: a root between bounds, which
    Brent's method cannot miss.

    Where every image is on its right side, the likelihood grows without end as the temperature falls to 0, and would
    make certainties of a handful of images. The labels are then softened to (n + 1) / (n + 2) and 1 / (n + 2) for the n
    images of each class, as Platt (1999) does for the same reason: what that many images without an error can show.

    Args:
        log_odds: log(p / (1 − p)) of "Deepfake" for each image.
        is_deepfake: the truth, with both kinds in it.
    """
    note = None
    targets = is_deepfake.astype(np.float64)
    if np.all(np.where(is_deepfake, log_odds, -log_odds) > 0):
        deepfakes, photos = int(is_deepfake.sum()), int((~is_deepfake).sum())
        targets = np.where(is_deepfake, (deepfakes + 1) / (deepfakes + 2), 1 / (photos + 2))
        note = (
            "every label is right, and no temperature is the best one: it is held to the confidence that so many "
            "images can show (Platt 1999)"
        )

    def derivative(beta: float) -> float:
        return float(np.sum(log_odds * (expit(beta * log_odds) - targets)))

    lowest, highest = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if derivative(lowest) >= 0:
        return TemperatureFit(MAX_TEMPERATURE, "the scores say nothing about these labels, or the opposite of them")
    if derivative(highest) <= 0:
        return TemperatureFit(MIN_TEMPERATURE, "the scores are so close together that the temperature is at its limit")
    return TemperatureFit(1 / float(brentq(derivative, lowest, highest, xtol=1e-12, rtol=1e-12)), note)
