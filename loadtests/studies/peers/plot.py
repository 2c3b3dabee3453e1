"""The comparison as one picture: images per second and p99, a column for each precision."""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.studies.model_speed import figures

from .contestants import CONTESTANTS
from .result import Comparison

_NAMES = {each.key: each.name for each in CONTESTANTS}
# Okabe and Ito's colours; ours are dark and the ceiling is a line, so that print in grey tells them, too.
_COLOURS = dict(zip(_NAMES, ("#0072B2", "#56B4E9", "#999999", "#E69F00", "#F0E442", "#D55E00", "#CC79A7"), strict=True))
_DPI = 110


def draw(comparison: Comparison) -> bytes:
    """A PNG file."""
    columns = len(comparison.precisions)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.4 * columns, 8.2), layout="constrained")
        grid = figure.subplots(2, columns, squeeze=False, sharey="row")
        for column, precision in enumerate(comparison.precisions):
            top, bottom = grid[0][column], grid[1][column]
            top.set_title(precision, loc="left", fontweight="bold")
            if rounds := comparison.ceiling.get(precision):
                ceiling = figures.Figure(tuple(rounds)).median
                top.axhline(ceiling, color="black", linewidth=1.2, linestyle="--", label="the bare model, at its best")
            _bars(top, comparison, precision, "images_per_second", 1.0)
            _bars(bottom, comparison, precision, "p99_ms", 1 / 1000)
            bottom.set_xlabel("Concurrent callers")
        for row in grid:  # the columns of a row share their scale, so only once it is known
            row[0].set_ylim(bottom=0)
        grid[0][0].set_ylabel("Images per second (more is better)")
        grid[1][0].set_ylabel("p99 in seconds (less is better)")
        legend: dict[str, object] = {}
        for axes in grid[0]:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                legend.setdefault(label, handle)
        figure.legend(
            list(legend.values()), list(legend), loc="outside lower center", ncols=3, frameon=False, fontsize=9
        )
        title = "Median of the rounds; the lines span the lowest and the highest"
        if comparison.rounds < comparison.rounds_wanted:
            title += f". Partial: {comparison.rounds} of {comparison.rounds_wanted} rounds"
        figure.suptitle(title, fontsize=10, color="#444444")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _bars(axes: Axes, comparison: Comparison, precision: str, measure: str, scale: float) -> None:
    """A group for each number of callers, a bar for each contestant that has the figure."""
    shown = [
        key
        for key in comparison.contestants
        if any(comparison.summary(key, precision, callers) for callers in comparison.callers)
    ]
    width = 0.84 / max(len(shown), 1)
    for index, key in enumerate(shown):
        for group, callers in enumerate(comparison.callers):
            summary = comparison.summary(key, precision, callers)
            found: figures.Figure | None = getattr(summary, measure) if summary else None
            if found is None:
                continue
            middle = found.median * scale
            spread = [[middle - min(found.rounds) * scale], [max(found.rounds) * scale - middle]]
            axes.bar(
                group - 0.42 + (index + 0.5) * width,
                middle,
                width * 0.92,
                yerr=spread,
                ecolor="#333333",
                error_kw={"linewidth": 1},
                color=_COLOURS[key],
                edgecolor="#333333",
                linewidth=0.5,
                label=_NAMES[key] if group == 0 else None,
            )
    axes.set_xticks(range(len(comparison.callers)), [str(callers) for callers in comparison.callers])
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
