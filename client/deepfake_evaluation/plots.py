"""The plots. All have one look: a title, on what they rest, a warning where the weights need one, the legend below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import ConfusionMatrixDisplay, precision_recall_curve, roc_curve

from .measures import THRESHOLD, Measures, Sample

if TYPE_CHECKING:
    from .robustness import Row

# Okabe and Ito's palette, told apart with every kind of colour vision and in grey.
_POSITIVE, _NEGATIVE = "#0072B2", "#E69F00"
_FAINT_INK, _FAINT = "#555555", "#8a8a8a"

_STYLE: list[Any] = [
    "seaborn-v0_8-whitegrid",
    {
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that plots are the same everywhere
        "text.parse_math": False,  # a label may hold a dollar sign
        "savefig.dpi": 150,
    },
]
_CHANCE: dict[str, Any] = {"color": _FAINT, "linestyle": ":"}
_POINT: dict[str, Any] = {
    "marker": "o", "linestyle": "", "markersize": 8, "color": _NEGATIVE, "markeredgecolor": "black", "clip_on": False,
    "label": f"threshold {THRESHOLD:g}",
}  # fmt: skip

_BINS = 25
_MANY_IMAGES = 50


@dataclass(frozen=True)
class Caption:
    """What every plot says of where it comes from; a note on its weights, where there is one, is white on red."""

    images: str
    model: str
    note: str | None


def plot_confusion(path: Path, sample: Sample, measures: Measures, caption: Caption) -> None:
    """Images by true class and verdict, coloured by their share of the true class."""
    counts = np.array(measures.confusion)
    shares = counts / counts.sum(axis=1, keepdims=True)
    names = [_shorten(label) for label in sample.labels]
    with _plot(path, "Confusion matrix", caption) as axes:
        display = ConfusionMatrixDisplay(shares, display_labels=names).plot(
            ax=axes, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": 1}, text_kw={"fontsize": 15}
        )
        for text, count, share in zip(display.text_.flat, counts.flat, shares.flat, strict=True):
            text.set_text(f"{count:,}\n{share:.1%}")
        axes.set(xlabel="verdict", ylabel="true class")
        axes.set_yticks(range(len(names)), names, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.grid(visible=False)


def plot_roc(path: Path, sample: Sample, measures: Measures, caption: Caption) -> None:
    """True against false positive rate over all thresholds, with the area and the threshold of 0.5."""
    false_rate, true_rate, _ = roc_curve(sample.truth, sample.scores)
    positive, negative = map(_shorten, sample.labels)
    with _plot(path, "ROC curve", caption, legend=f"positive class: {positive}") as axes:
        auc = measures.auc
        axes.plot([0, 1], [0, 1], label="chance", **_CHANCE)
        label = f"AUC {auc.value:.4f}\n95 % CI {auc.low:.4f}–{auc.high:.4f}"
        axes.plot(false_rate, true_rate, color=_POSITIVE, linewidth=2, clip_on=False, label=label)
        found, found_not = (measures.recalls[label].value for label in sample.labels)
        axes.plot(1 - found_not, found, **_POINT)
        axes.set_xlabel(f"false positive rate: “{negative}” called “{positive}”")
        axes.set_ylabel(f"true positive rate: “{positive}” found")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def plot_precision_recall(path: Path, sample: Sample, measures: Measures, caption: Caption) -> None:
    """Precision against recall over all thresholds, with the threshold of 0.5."""
    precision, recall, _ = precision_recall_curve(sample.truth, sample.scores)
    positive = _shorten(sample.labels[0])
    with _plot(path, "Precision and recall", caption, legend=f"positive class: {positive}") as axes:
        share = sample.images_of(sample.labels[0]) / sample.images
        axes.axhline(share, label=f"chance: its share, {share:.2f}", **_CHANCE)
        label = f"average precision {measures.average_precision:.4f}"
        # In steps, as the average precision sums it.
        axes.step(recall, precision, where="post", color=_POSITIVE, linewidth=2, clip_on=False, label=label)
        found = measures.by_class[sample.labels[0]]
        axes.plot(found["recall"], found["precision"], **_POINT)
        axes.set_xlabel(f"recall: “{positive}” that are found")
        axes.set_ylabel(f"precision: verdicts “{positive}” that are right")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def plot_reliability(path: Path, sample: Sample, measures: Measures, caption: Caption) -> None:
    """Share of the positive class against its mean score, bin by bin."""
    bins, error = measures.reliability.bins, measures.reliability.expected_calibration_error
    points = [(each.mean_score or 0.0, each.positive_share or 0.0, each.images) for each in bins if each.images]
    positive = _shorten(sample.labels[0])
    with _plot(path, "Reliability of the scores", caption, legend=f"positive class: {positive}") as axes:
        axes.plot([0, 1], [0, 1], label="perfectly calibrated", **_CHANCE)
        scores, shares, _ = zip(*points, strict=True)
        label = f"{len(bins)} bins, expected calibration error {error:.4f}"
        axes.plot(scores, shares, "o-", color=_POSITIVE, linewidth=1.5, clip_on=False, label=label)
        for score, share, images in points:
            below = share > 0.85
            axes.annotate(
                f"{images:,}", (score, share), fontsize=8, color=_FAINT_INK, xytext=(0, -7 if below else 7),
                textcoords="offset points", ha="center", va="top" if below else "bottom",
            )  # fmt: skip
        axes.set_xlabel(f"mean score of “{positive}”; the numbers are images")
        axes.set_ylabel(f"share that is “{positive}”")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def plot_scores(path: Path, sample: Sample, _: Measures, caption: Caption) -> None:
    """How the scores of the positive class are spread, for each true class."""
    positive, negative = map(_shorten, sample.labels)
    edges = np.linspace(0, 1, _BINS + 1).tolist()
    with _plot(path, "Scores by true class", caption, legend="true class", height=5.4) as axes:
        for name, chosen, colour, hatch in (
            (positive, sample.truth, _POSITIVE, ""),
            (negative, ~sample.truth, _NEGATIVE, "///"),
        ):
            axes.hist(
                sample.scores[chosen], edges, histtype="stepfilled", facecolor=(colour, 0.45), edgecolor=colour,
                linewidth=1.8, hatch=hatch, label=f"{name} ({chosen.sum():,})",
            )  # fmt: skip
        axes.axvline(THRESHOLD, color=_FAINT, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel=f"score of “{positive}”", ylabel="images")
        if axes.get_ylim()[1] > _MANY_IMAGES:
            # The few images far from the rest are what matters here, and thousands are not to hide them.
            axes.set_yscale("symlog", linthresh=10)
            axes.set(ylim=(0, None), ylabel="images (linear to 10, then logarithmic)")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:,.0f}")


def plot_robustness(path: Path, rows: Sequence[Row], caption: Caption) -> None:
    """Accuracy and AUC with their confidence intervals, a line for each damage."""
    places = np.arange(len(rows))
    with _plot(path, "Robustness to damage", caption, width=7.5, height=2.2 + 0.42 * len(rows)) as axes:
        for name, shift, marker, colour, intervals in (
            ("accuracy", -0.13, "o", _POSITIVE, [row.measures.accuracy for row in rows]),
            ("AUC", 0.13, "s", _NEGATIVE, [row.measures.auc for row in rows]),
        ):
            axes.axvline(intervals[0].value, color=colour, linestyle=":", linewidth=1)
            axes.errorbar(
                [each.value for each in intervals],
                places + shift,
                xerr=[[each.value - each.low for each in intervals], [each.high - each.value for each in intervals]],
                fmt=marker, color=colour, markeredgecolor="black", markeredgewidth=0.6, capsize=3, linewidth=1.5,
                label=f"{name}, 95 % CI",
            )  # fmt: skip
        axes.axhline(0.5, color=_FAINT, linewidth=0.8)
        axes.set_yticks(places, [row.damage for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(right=1.005)
        axes.set_xlabel("dotted: without damage")
        axes.grid(visible=False, axis="y")


@contextmanager
def _plot(
    path: Path, title: str, caption: Caption, *, legend: str | None = None, width: float = 6.0, height: float = 6.2
) -> Iterator[Axes]:
    """Axes to draw on, in a figure of so many inches; the picture is written to `path` at the end."""
    with style.context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(title, x=0.02, ha="left", fontsize=14, fontweight="bold")
        axes = figure.subplots()
        lines = [*textwrap.wrap(caption.images, int(width * 12)), *textwrap.wrap(caption.model, int(width * 12))]
        basis = axes.set_title("\n".join(lines), loc="left", fontsize=8, color=_FAINT_INK)
        if caption.note:
            axes.annotate(
                caption.note, (0, 1), (4, 8), xycoords=basis, textcoords="offset points", color="white",
                backgroundcolor="#B00020", fontsize=8.5, fontweight="bold",
            )  # fmt: skip
        yield axes
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", ncols=3, title=legend, fontsize=9, title_fontsize=9)
        # No time of writing and no version of matplotlib in the file: equal results give equal files.
        figure.savefig(path, format="png", metadata={"Software": None})


def _shorten(label: str, limit: int = 18) -> str:
    """A label that fits an axis; the full one is in the report."""
    return label if len(label) <= limit else label[: limit - 1] + "…"
