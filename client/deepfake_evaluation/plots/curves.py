"""ROC, precision-recall and reliability of the scores of the positive class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import precision_recall_curve, roc_curve

from ..measures import THRESHOLD, Measures, Sample
from .frame import FAINT, FAINT_INK, NEGATIVE, POSITIVE, Caption, plot, shorten


def plot_roc(path: Path, sample: Sample, measures: Measures, caption: Caption) -> None:
    """True against false positive rate over all thresholds, with the area and the threshold of 0.5."""
    false_rate, true_rate, _ = roc_curve(sample.truth, sample.scores)
    positive, negative = map(shorten, sample.labels)
    with plot(path, "ROC curve", caption, legend=_positive_class(positive)) as axes:
        auc = measures.auc
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", label="chance")
        axes.plot(
            false_rate, true_rate, color=POSITIVE, linewidth=2, clip_on=False,
            label=f"AUC {auc.value:.4f}\n95 % CI {auc.low:.4f}–{auc.high:.4f}",
        )  # fmt: skip
        matrix = np.array(measures.confusion)
        rates = matrix[1, 0] / matrix[1].sum(), matrix[0, 0] / matrix[0].sum()
        axes.plot(
            *rates,
            "o",
            color=NEGATIVE,
            markeredgecolor="black",
            markersize=8,
            clip_on=False,
            label=f"threshold {THRESHOLD:g}",
        )
        axes.set_xlabel(f"false positive rate: “{negative}” called “{positive}”")
        axes.set_ylabel(f"true positive rate: “{positive}” found")
        _unit_square(axes)


def plot_precision_recall(path: Path, sample: Sample, measures: Measures, caption: Caption) -> None:
    """Precision against recall over all thresholds, with the threshold of 0.5."""
    precision, recall, _ = precision_recall_curve(sample.truth, sample.scores)
    share = sample.images_of(sample.labels[0]) / sample.images
    positive = shorten(sample.labels[0])
    with plot(path, "Precision and recall", caption, legend=_positive_class(positive)) as axes:
        axes.axhline(share, color=FAINT, linestyle=":", label=f"chance: its share, {share:.2f}")
        # In steps, as the average precision sums it.
        axes.step(
            recall, precision, where="post", color=POSITIVE, linewidth=2, clip_on=False,
            label=f"average precision {measures.average_precision:.4f}",
        )  # fmt: skip
        found = measures.by_class[sample.labels[0]]
        axes.plot(
            found["recall"], found["precision"], "o", color=NEGATIVE, markeredgecolor="black", markersize=8,
            clip_on=False, label=f"threshold {THRESHOLD:g}",
        )  # fmt: skip
        axes.set_xlabel(f"recall: “{positive}” that are found")
        axes.set_ylabel(f"precision: verdicts “{positive}” that are right")
        _unit_square(axes)


def plot_reliability(path: Path, sample: Sample, measures: Measures, caption: Caption) -> None:
    """Share of the positive class against its mean score, bin by bin."""
    filled = [each for each in measures.reliability.bins if each.images]
    positive = shorten(sample.labels[0])
    with plot(path, "Reliability of the scores", caption, legend=_positive_class(positive)) as axes:
        error = measures.reliability.expected_calibration_error
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", label="perfectly calibrated")
        points = [(each.mean_score or 0.0, each.positive_share or 0.0, each.images) for each in filled]
        axes.plot(
            [score for score, _, _ in points], [share for _, share, _ in points], "o-", color=POSITIVE, linewidth=1.5, clip_on=False,
            label=f"{len(measures.reliability.bins)} bins, expected calibration error {error:.4f}",
        )  # fmt: skip
        for score, share, images in points:
            below = share > 0.85
            axes.annotate(
                f"{images:,}", (score, share), fontsize=8, color=FAINT_INK, xytext=(0, -7 if below else 7),
                textcoords="offset points", ha="center", va="top" if below else "bottom",
            )  # fmt: skip
        axes.set_xlabel(f"mean score of “{positive}”; the numbers are images")
        axes.set_ylabel(f"share that is “{positive}”")
        _unit_square(axes)


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def _positive_class(label: str) -> str:
    return f"positive class: {label}"
