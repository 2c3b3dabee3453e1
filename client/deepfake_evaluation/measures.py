"""From predictions to figures, with scikit-learn's definitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, classification_report, confusion_matrix

from . import InputError
from .intervals import Interval, area_under_roc, proportion
from .run import Prediction

#: Score of the positive class from which on it is the verdict: the one of two that is higher.
THRESHOLD = 0.5
BINS = 10


@dataclass(frozen=True)
class Sample:
    """What is measured on.

    Attributes:
        labels: of the model; the first is the positive class.
        truth: shape (N,), True for images of the positive class.
        scores: shape (N,), probability of the positive class.
        predicted: shape (N,), True where the verdict is the positive class.
        unreadable: (file, error) of each image without scores.
    """

    labels: tuple[str, str]
    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]
    predicted: NDArray[np.bool_]
    unreadable: list[tuple[str, str]]

    @property
    def images(self) -> int:
        """How many have scores."""
        return len(self.truth)

    def images_of(self, label: str) -> int:
        """How many of one class have scores."""
        return int((self.truth == (label == self.labels[0])).sum())


def collect(predictions: Sequence[Prediction], labels: tuple[str, str]) -> Sample:
    """The predictions as arrays.

    Raises:
        InputError: of one class there is no image that could be read.
    """
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


@dataclass(frozen=True)
class Bin:
    """The images with a score from `low` up to `high`; where there are none, the means are None."""

    low: float
    high: float
    images: int
    mean_score: float | None
    positive_share: float | None


@dataclass(frozen=True)
class Reliability:
    """Do images that get a score of 80 % turn out to be positive 80 % of the time?

    The expected calibration error is the mean distance of score and share over the bins, each weighted by its images.
    """

    bins: tuple[Bin, ...]
    expected_calibration_error: float


def reliability(truth: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> Reliability:
    """How scores from 0 to 1, shape (N,), compare with how often `truth`, shape (N,), is True, in ten equal bins."""
    edges = np.arange(BINS + 1) / BINS
    images = np.histogram(scores, edges)[0]
    score_sums = np.histogram(scores, edges, weights=scores)[0]
    positives = np.histogram(scores[truth], edges)[0]
    bins = tuple(
        Bin(
            low=float(edges[part]),
            high=float(edges[part + 1]),
            images=int(count),
            mean_score=float(score_sums[part] / count) if count else None,
            positive_share=float(positives[part] / count) if count else None,
        )
        for part, count in enumerate(images)
    )
    return Reliability(bins, float(np.abs(score_sums - positives).sum() / len(scores)))


@dataclass(frozen=True)
class Measures:
    """The figures of a sample.

    Attributes:
        table: scikit-learn's classification report, as it prints it with four digits.
        by_class: the same as numbers.
        confusion: images by true label (rows) and verdict (columns), in the order of the labels.
        accuracy, auc: with their confidence intervals.
        average_precision: area under the precision-recall curve of the positive class, as scikit-learn sums it.
        recalls: share of each class that was recognised, with its confidence interval.
        reliability: of the scores of the positive class.
    """

    table: str
    by_class: dict[str, Any]
    confusion: list[list[int]]
    accuracy: Interval
    auc: Interval
    average_precision: float
    recalls: dict[str, Interval]
    reliability: Reliability


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
        reliability=reliability(sample.truth, sample.scores),
    )
