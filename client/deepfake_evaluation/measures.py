"""From predictions to figures, as scikit-learn defines them, with confidence intervals and bounds of error rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm
from sklearn.metrics import average_precision_score, classification_report, confusion_matrix, roc_auc_score

from . import InputError
from .run import Prediction

#: Score of the positive class from which on it is the verdict: the one of two that is higher.
THRESHOLD = 0.5
BINS = 10
CONFIDENCE = 0.95
_Z = float(norm.ppf((1 + CONFIDENCE) / 2))


@dataclass(frozen=True)
class Interval:
    """A measured value between the ends of its confidence interval, and the method that gave these."""

    value: float
    low: float
    high: float
    method: str
    confidence: float = CONFIDENCE

    def __format__(self, _: str) -> str:
        return f"{self.value:.4f} (95 % CI {self.low:.4f}–{self.high:.4f})"


def proportion(hits: int, total: int) -> Interval:
    """A share, with Wilson's score interval, which keeps its coverage for few images and for shares near 0 and 1."""
    ends = binomtest(hits, total).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(hits / total, float(ends.low), float(ends.high), "Wilson")


def area_under_roc(truth: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> Interval:
    """The area under the ROC curve: the share of pairs of a positive and a negative image that are in order.

    With R. G. Newcombe's score interval (Statistics in Medicine 25, 2006, method 5), which leaves room for doubt even
    where the classes are perfectly apart: the areas from which this one is just within the expected deviation.

    `truth`, shape (N,), is True for the positive class, and both classes occur; its `scores` are higher.
    """
    area, positives = float(roc_auc_score(truth, scores)), int(truth.sum())
    negatives = len(truth) - positives
    others = len(truth) / 2 - 1

    def excess(true: float, side: int) -> float:
        spread = true * (1 - true) * (1 + others * (1 - true) / (2 - true) + others * true / (1 + true))
        return side * (area - true) - _Z * math.sqrt(spread / (positives * negatives))

    tiny = 1e-9
    low = float(brentq(excess, tiny, min(area, 1 - tiny), args=(1,))) if area > 0 else 0.0
    high = float(brentq(excess, max(area, tiny), 1 - tiny, args=(-1,))) if area < 1 else 1.0
    return Interval(area, low, high, "Newcombe, method 5")


@dataclass(frozen=True)
class Sample:
    """What is measured on, as arrays of shape (N,)."""

    labels: tuple[str, str]
    """Of the model; the first is the positive class."""
    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]
    """Probability of the positive class."""
    predicted: NDArray[np.bool_]
    unreadable: list[tuple[str, str]]
    """(file, error) of each image without scores."""

    @property
    def images(self) -> int:
        return len(self.truth)

    def images_of(self, label: str) -> int:
        return int((self.truth == (label == self.labels[0])).sum())

    def describe(self) -> str:
        counts = ", ".join(f"{self.images_of(label)} {label}" for label in self.labels)
        return f"{self.images} images ({counts})"


def collect(predictions: Sequence[Prediction], labels: tuple[str, str]) -> Sample:
    """The predictions as arrays."""
    read = [each for each in predictions if each.scores is not None]
    sample = Sample(
        labels=labels,
        truth=np.array([each.label == labels[0] for each in read], np.bool_),
        scores=np.array([each.scores[0] for each in read if each.scores], np.float64),
        predicted=np.array([each.predicted(labels) == labels[0] for each in read], np.bool_),
        unreadable=[(each.file, each.error or "") for each in predictions if each.scores is None],
    )
    for label in labels:
        if not sample.images_of(label):
            first = next((f"{file}: {error}" for file, error in sample.unreadable if file.startswith(f"{label}/")), "")
            raise InputError(f"none of the images in `{label}` can be read, so nothing can be measured ({first})")
    return sample


def expected_calibration_error(truth: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> float:
    """Do images that get a score of 80 % turn out to be positive 80 % of the time? Both have shape (N,).

    The mean distance of score and share of positives over ten equal bins of the scores, each weighted by its images.
    """
    score_sums, positives = (np.histogram(scores, BINS, (0, 1), weights=each)[0] for each in (scores, truth * 1.0))
    return float(np.abs(score_sums - positives).sum() / len(scores))


@dataclass(frozen=True)
class Measures:
    """The figures of a sample; average precision and calibration error are those of the positive class."""

    table: str
    """scikit-learn's classification report as it prints it, and as numbers."""
    by_class: dict[str, Any]
    confusion: list[list[int]]
    """Images by true label (rows) and verdict (columns), in the order of the labels."""
    accuracy: Interval
    auc: Interval
    average_precision: float
    recalls: dict[str, Interval]
    calibration_error: float


def measure(sample: Sample) -> Measures:
    """All figures of a sample with images of both classes."""
    truth, predicted = (~sample.truth).astype(int), (~sample.predicted).astype(int)  # as indices of the labels
    options: dict[str, Any] = {"labels": [0, 1], "target_names": list(sample.labels), "zero_division": 0}
    confusion = confusion_matrix(truth, predicted, labels=[0, 1])
    return Measures(
        table=classification_report(truth, predicted, digits=4, **options),
        by_class=classification_report(truth, predicted, output_dict=True, **options),
        confusion=confusion.tolist(),
        accuracy=proportion(int(confusion.trace()), sample.images),
        auc=area_under_roc(sample.truth, sample.scores),
        average_precision=float(average_precision_score(sample.truth, sample.scores)),
        recalls={
            label: proportion(int(confusion[index, index]), int(confusion[index].sum()))
            for index, label in enumerate(sample.labels)
        },
        calibration_error=expected_calibration_error(sample.truth, sample.scores),
    )


def upper_bound(errors: int, images: int) -> float:
    """The error rate that is exceeded with 5 % probability at most (Clopper and Pearson 1934, one-sided, exact)."""
    return float(binomtest(errors, images, alternative="less").proportion_ci(CONFIDENCE, method="exact").high)


def images_needed(rate: float) -> int:
    """How many images without a single error show that the rate is at most `rate`: 299 for 1 %."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate))


def allowed_errors(images: int, rate: float) -> int:
    """The most errors whose `upper_bound` is still at most `rate`; −1 where there are too few images for none."""
    errors = int(binom.ppf(1 - CONFIDENCE, images, rate))
    return errors if binom.cdf(errors, images, rate) <= 1 - CONFIDENCE else errors - 1
