"""What all plots have in common: size, colours, title, and the line that says on what they rest."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with every kind of colour vision; dark and light enough to be so in grey as well,
# and lines differ in their dashes besides.
POSITIVE, NEGATIVE = "#0072B2", "#E69F00"
INK, FAINT_INK, FAINT = "#222222", "#555555", "#8a8a8a"
WARNING = "#B00020"

_DOTS_PER_INCH = 150
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that plots are the same everywhere
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Caption:
    """What every plot says of where it comes from.

    Attributes:
        images: how many, of which classes.
        model: name, version and weights.
        note: on stand-in or unknown weights; None where nothing is to be said.
    """

    images: str
    model: str
    note: str | None


@contextmanager
def plot(
    path: Path, title: str, caption: Caption, *, legend: str | None = None, width: float = 6.0, height: float = 6.2
) -> Iterator[Axes]:
    """Axes to draw on; the picture is written to `path` at the end.

    Args:
        path: of the PNG file.
        title: in a few words.
        caption: goes below the title, its note first and white on red.
        legend: title of the legend, which stands below the axes where it hides nothing.
        width, height: in inches, 150 pixels each.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        header = _write_header(figure, title, caption)
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - header / height))  # type: ignore[union-attr, call-arg]
        axes = figure.subplots()
        yield axes
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", ncols=3, title=legend, fontsize=9, title_fontsize=9)
        # No time of writing and no version of matplotlib in the file: equal results give equal files.
        figure.savefig(path, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})


def _write_header(figure: Figure, title: str, caption: Caption) -> float:
    """Title, note and caption at the top; the height that they take, in inches."""
    width, height = figure.get_size_inches()
    place = {"x": 0.14 / width, "ha": "left", "va": "top"}
    top = 0.12
    figure.text(y=1 - top / height, s=title, fontsize=14, fontweight="bold", **place)
    top += 0.34
    if caption.note:
        box = {"facecolor": WARNING, "edgecolor": WARNING, "pad": 3.5}
        figure.text(
            y=1 - top / height, s=caption.note, fontsize=8.5, fontweight="bold", color="white", bbox=box, **place
        )
        top += 0.27
    lines = textwrap.wrap(caption.images, int(width * 15)) + textwrap.wrap(caption.model, int(width * 15))
    figure.text(y=1 - top / height, s="\n".join(lines), fontsize=8, color=FAINT_INK, linespacing=1.35, **place)
    return top + 0.16 * len(lines) + 0.1


def shorten(label: str, limit: int = 18) -> str:
    """A label that fits an axis; the full one is in the report."""
    return label if len(label) <= limit else label[: limit - 1] + "…"
