"""From predictions to figures, with scikit-learn's definitions."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, classification_report, confusion_matrix

from .errors import InputError
from .intervals import Interval, area_under_roc, proportion
from .predictions import Prediction
from .reliability import Reliability, reliability

#: Score of the positive class from which on it is the verdict: the one of two that is higher.
THRESHOLD = 0.5


@dataclass(frozen=True)
class Sample:
    """What is measured on: six bytes for each image that has scores.

    Attributes:
        labels: of the model; the first is the positive class.
        truth: shape (N,), True for images of the positive class.
        scores: shape (N,), probability of the positive class.
        predicted: shape (N,), True where the verdict is the positive class.
        unreadable: (file, error) of each image without scores.
    """

    labels: tuple[str, str]
    truth: NDArray[np.bool_]
    scores: NDArray[np.float32]
    predicted: NDArray[np.bool_]
    unreadable: list[tuple[str, str]] = field(repr=False)

    @property
    def images(self) -> int:
        """How many have scores."""
        return len(self.truth)

    def images_of(self, label: str) -> int:
        """How many of one class have scores."""
        return int((self.truth == (label == self.labels[0])).sum())


def collect(predictions: Iterable[Prediction], labels: Sequence[str]) -> Sample:
    """The predictions as arrays.

    Raises:
        InputError: of one class there is no image that could be read.
    """
    truth, scores, predicted = array("b"), array("f"), array("b")
    unreadable: list[tuple[str, str]] = []
    for each in predictions:
        if each.scores is None:
            unreadable.append((each.file, each.error or ""))
            continue
        truth.append(each.label == labels[0])
        scores.append(each.scores[0])
        predicted.append(each.predicted(labels) == labels[0])
    sample = Sample(
        labels=(labels[0], labels[1]),
        truth=np.frombuffer(truth, np.bool_) if truth else np.empty(0, np.bool_),
        scores=np.frombuffer(scores, np.float32) if scores else np.empty(0, np.float32),
        predicted=np.frombuffer(predicted, np.bool_) if predicted else np.empty(0, np.bool_),
        unreadable=unreadable,
    )
    for label in labels:
        if not sample.images_of(label):
            first = next((f"{file}: {error}" for file, error in unreadable if file.startswith(f"{label}/")), "")
            raise InputError(f"none of the images in `{label}` can be read, so nothing can be measured ({first})")
    return sample


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
