"""The panels as small plots over the whole load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from loadtests.observability import LocalPrometheus

from .panels import Panel
from .table import made_up

matplotlib.use("Agg")
from matplotlib import pyplot

_COLUMNS = 4
_LEGEND = 6  # series; of more only those are named that are ever above zero
_SCALES = {"percentunit": (100.0, "%"), "bytes": (2.0**-30, "GiB"), "reqps": (1.0, "1/s"), "cps": (1.0, "1/s")}
_UNITS = {"short": "", "watt": "W", "celsius": "°C"}


def draw(
    prometheus: LocalPrometheus, panels: Sequence[Panel], phases: Mapping[str, tuple[float, float]], path: Path
) -> None:
    """Write a PNG of every panel whose series are Triton's own.

    Args:
        prometheus: still has the whole load.
        panels: of the dashboard.
        phases: name → begin and end, in seconds since 1970.
        path: of the PNG.
    """
    shown = [panel for panel in panels if not made_up(panel)]
    begin, end = min(begin for begin, _ in phases.values()), max(end for _, end in phases.values())
    rows = math.ceil(len(shown) / _COLUMNS)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=(5 * _COLUMNS, 2.9 * rows), layout="constrained")
    for panel, axis in zip(shown, axes.flat, strict=False):
        scale, unit = _SCALES.get(panel.unit, (1.0, _UNITS.get(panel.unit, panel.unit)))
        for query in panel.queries:
            for labels, samples in prometheus.query_range(query.expression, begin, end, 1.0):
                times = [moment - begin for moment, _ in samples]
                axis.plot(
                    times, np.array([value for _, value in samples]) * scale, label=query.name(labels), linewidth=1.3
                )
        for number, (name, (start, stop)) in enumerate(phases.items()):
            axis.axvspan(start - begin, stop - begin, color="0.5", alpha=0.06 + 0.08 * number, linewidth=0)
            axis.text(
                (start + stop) / 2 - begin,
                1.0,
                name,
                transform=axis.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=7,
            )
        axis.set_title(f"{panel.title}{f' ({unit})' if unit else ''}", fontsize=10, pad=14)
        axis.set_xlim(0, end - begin)
        top = max((value for line in axis.lines for value in line.get_ydata() if value > 0), default=1.0)
        axis.set_ylim(-0.03 * top, 1.08 * top)  # what is nothing, or all there is, can still be seen
        axis.tick_params(labelsize=7)
        if len(axis.lines) > 1:
            named = [line for line in axis.lines if len(axis.lines) <= _LEGEND or any(line.get_ydata() > 0)]
            axis.legend(handles=named, fontsize=6, loc="upper left", framealpha=0.6)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=70)
    pyplot.close(figure)
