"""Do images that get a score of 80 % turn out to be deepfakes 80 % of the time?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The images whose score lies in one part of the scale.

    Attributes:
        low, high: of the part; its lower end belongs to it, its upper end to the next one.
        images: how many there are.
        mean_score, positive_share: of them; None where there are none.
    """

    low: float
    high: float
    images: int
    mean_score: float | None
    positive_share: float | None


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram.

    Attributes:
        bins: ten parts of the scale, equally wide.
        expected_calibration_error: mean distance of score and share over the bins, each weighted by its images.
    """

    bins: tuple[Bin, ...]
    expected_calibration_error: float


def reliability(truth: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> Reliability:
    """How the scores of the positive class compare with how often it is true.

    Args:
        truth: shape (N,), True for the positive class.
        scores: shape (N,), probability of the positive class, 0 to 1.
    """
    scores = scores.astype(np.float64)
    index = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    images = np.bincount(index, minlength=BINS)
    score_sums = np.bincount(index, scores, BINS)
    positives = np.bincount(index[truth], minlength=BINS)
    bins = tuple(
        Bin(
            part / BINS,
            (part + 1) / BINS,
            int(count),
            float(score_sums[part] / count) if count else None,
            float(positives[part] / count) if count else None,
        )
        for part, count in enumerate(images)
    )
    return Reliability(bins, float(np.abs(score_sums - positives).sum() / len(scores)))
