"""The plots, as scikit-learn draws them. Each says on what it rests, on red where the weights need a warning."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from .measures import BINS, THRESHOLD, Measures, Sample

if TYPE_CHECKING:
    from .robustness import Row

_SCORE_BINS = 25


def draw(path: Path, title: str, basis: str, note: str | None, plot: Callable[[Axes], object]) -> None:
    """Write a PNG of what `plot` draws; `basis` says of what, and `note` warns of the weights."""
    with rc_context({"text.parse_math": False}):  # a label may hold a dollar sign
        figure = Figure(figsize=(6.4, 6.4), dpi=150, layout="constrained")
        figure.suptitle(title, fontweight="bold")
        axes = figure.subplots()
        plot(axes)
        axes.set_title(textwrap.fill(basis, 80), loc="left", fontsize=8)
        if note:
            figure.supxlabel(note, color="white", backgroundcolor="#B00020", fontsize=9, fontweight="bold")
        # No time of writing and no version of matplotlib in the file: equal results give equal files.
        figure.savefig(path, format="png", metadata={"Software": None})


def plots_of(sample: Sample, measures: Measures) -> dict[str, tuple[str, Callable[[Axes], object]]]:
    """File name → title, and what draws the plot."""
    truth, positive = np.where(sample.truth, *sample.labels), sample.labels[0]

    def confusion(axes: Axes) -> None:
        display = ConfusionMatrixDisplay(np.array(measures.confusion), display_labels=sample.labels)
        display.plot(ax=axes, cmap="Blues", colorbar=False, values_format=",d")
        axes.set(xlabel="verdict", ylabel="true class")

    def roc(axes: Axes) -> None:
        RocCurveDisplay.from_predictions(truth, sample.scores, pos_label=positive, plot_chance_level=True, ax=axes)

    def precision_recall(axes: Axes) -> None:
        PrecisionRecallDisplay.from_predictions(
            truth, sample.scores, pos_label=positive, plot_chance_level=True, ax=axes
        )

    def reliability(axes: Axes) -> None:
        CalibrationDisplay.from_predictions(truth, sample.scores, pos_label=positive, n_bins=BINS, ax=axes)

    def scores(axes: Axes) -> None:
        edges = np.linspace(0, 1, _SCORE_BINS + 1).tolist()
        groups = [sample.scores[sample.truth], sample.scores[~sample.truth]]
        axes.hist(groups, edges, label=list(sample.labels))
        axes.axvline(THRESHOLD, color="grey", linestyle="--")
        # The few images far from the rest are what matters here, and thousands are not to hide them.
        axes.set_yscale("symlog", linthresh=10)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel=f"score of {positive}", ylabel="images (linear to 10, then logarithmic)")
        axes.legend(title="true class")

    return {
        "confusion_matrix.png": ("Confusion matrix", confusion),
        "roc.png": ("ROC curve", roc),
        "precision_recall.png": ("Precision and recall", precision_recall),
        "reliability.png": ("Reliability of the scores", reliability),
        "scores.png": ("Scores by true class", scores),
    }


def plot_robustness(axes: Axes, rows: Sequence[Row]) -> None:
    """Accuracy and AUC with their 95 % confidence intervals, a line for each damage."""
    places = np.arange(len(rows))
    for name, shift, marker, intervals in (
        ("accuracy", -0.13, "o", [row.measures.accuracy for row in rows]),
        ("AUC", 0.13, "s", [row.measures.auc for row in rows]),
    ):
        values, lows, highs = (np.array([getattr(each, end) for each in intervals]) for end in ("value", "low", "high"))
        ends = [values - lows, highs - values]
        axes.errorbar(values, places + shift, xerr=ends, fmt=marker, capsize=3, label=f"{name}, 95 % CI")
    axes.set_yticks(places, [row.damage for row in rows])
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2)
