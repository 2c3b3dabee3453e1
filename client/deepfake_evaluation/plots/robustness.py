"""What each damage leaves of accuracy and AUC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..robustness import Row
from .frame import FAINT, NEGATIVE, POSITIVE, Caption, plot


def plot_robustness(path: Path, rows: Sequence[Row], caption: Caption) -> None:
    """Accuracy and AUC with their confidence intervals, a line for each damage."""
    places = np.arange(len(rows))
    with plot(path, "Robustness to damage", caption, width=7.5, height=2.2 + 0.42 * len(rows)) as axes:
        for name, shift, marker, colour, intervals in (
            ("accuracy", -0.13, "o", POSITIVE, [each.accuracy for each in rows]),
            ("AUC", 0.13, "s", NEGATIVE, [each.auc for each in rows]),
        ):
            axes.axvline(intervals[0].value, color=colour, linestyle=":", linewidth=1)
            axes.errorbar(
                [each.value for each in intervals],
                places + shift,
                xerr=[[each.value - each.low for each in intervals], [each.high - each.value for each in intervals]],
                fmt=marker, color=colour, markeredgecolor="black", markeredgewidth=0.6, capsize=3, linewidth=1.5,
                label=f"{name}, 95 % CI",
            )  # fmt: skip
        axes.axhline(0.5, color=FAINT, linewidth=0.8)
        axes.set_yticks(places, [each.damage for each in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(right=1.005)
        axes.set_xlabel("dotted: without damage")
        axes.grid(visible=False, axis="y")
