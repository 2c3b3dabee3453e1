"""How many images got which verdict, and which score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from ..measures import THRESHOLD, Measures, Sample
from .frame import FAINT, INK, NEGATIVE, POSITIVE, Caption, plot, shorten

_BINS = 25
_MANY = 50


def plot_confusion(path: Path, sample: Sample, measures: Measures, caption: Caption) -> None:
    """Images by true class and verdict, coloured by their share of the true class."""
    matrix = np.array(measures.confusion)
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    names = [shorten(label) for label in sample.labels]
    with plot(path, "Confusion matrix", caption) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*matrix.shape):
            dark = shares[row, column] > 0.55
            text = f"{matrix[row, column]:,}\n{shares[row, column]:.1%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=15, color="white" if dark else INK)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names, rotation=90, va="center")
        axes.set(xlabel="verdict", ylabel="true class")
        axes.tick_params(length=0)
        axes.grid(visible=False)


def plot_scores(path: Path, sample: Sample, caption: Caption) -> None:
    """How the scores of the positive class are spread, for each true class."""
    positive = shorten(sample.labels[0])
    edges = np.linspace(0, 1, _BINS + 1).tolist()
    with plot(path, "Scores by true class", caption, legend="true class", height=5.4) as axes:
        for label, chosen, colour, hatch in (
            (sample.labels[0], sample.truth, POSITIVE, ""),
            (sample.labels[1], ~sample.truth, NEGATIVE, "///"),
        ):
            axes.hist(
                sample.scores[chosen], edges, histtype="stepfilled", facecolor=(colour, 0.45), edgecolor=colour,
                linewidth=1.8, hatch=hatch, label=f"{shorten(label)} ({chosen.sum():,})",
            )  # fmt: skip
        axes.axvline(THRESHOLD, color=FAINT, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel=f"score of “{positive}”", ylabel="images")
        if axes.get_ylim()[1] > _MANY:
            # The few images far from the rest are what matters here, and thousands are not to hide them.
            axes.set_yscale("symlog", linthresh=10)
            axes.set(ylim=(0, None), ylabel="images (linear to 10, then logarithmic)")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:,.0f}")
