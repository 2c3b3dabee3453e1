"""The search as four pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .search import Found
from .step import Step

# Okabe and Ito's colours, which the colour-blind tell apart; each line has a marker of its own for print in grey.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"


def draw(found: Found, slo_p95_ms: float, cores: int) -> dict[str, bytes]:
    """PNG files by name; what was not measured has no line."""
    steps = sorted(found.steps, key=lambda step: step.offered)
    return {
        "throughput.png": _picture(found, "Right answers per second", lambda axes: _throughput(axes, steps)),
        "latency.png": _picture(found, "Latency in ms", lambda axes: _latency(axes, steps, slo_p95_ms)),
        "server.png": _picture(found, "ms for each request", lambda axes: _server(axes, steps)),
        "usage.png": _picture(found, "Share of what there is", lambda axes: _usage(axes, steps, cores)),
    }


def _picture(found: Found, unit: str, paint: Callable[[Axes], None]) -> bytes:
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel("Offered load, requests per second")
        axes.set_ylabel(unit)
        axes.grid(color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        paint(axes)
        if found.capacity is not None:
            axes.axvline(found.capacity, color=GREEN, linewidth=1.5, linestyle=(0, (5, 3)), label="capacity")
        axes.set_xlim(0, 1.06 * max(step.offered for step in found.steps))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _throughput(axes: Axes, steps: Sequence[Step]) -> None:
    top = max(step.offered for step in steps)
    axes.plot([0, top], [0, top], color=GREY, linewidth=1, linestyle=":", label="all that is offered")
    axes.plot([step.offered for step in steps], [step.answered for step in steps], color=BLUE, linewidth=1.2)
    for met, colour, marker, label in ((True, BLUE, "o", "target held"), (False, RED, "X", "target broken")):
        points = [(step.offered, step.answered) for step in steps if step.met is met]
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.scatter(x, y, color=colour, marker=marker, s=45, label=label, zorder=3)
    axes.set_ylim(bottom=0)


def _latency(axes: Axes, steps: Sequence[Step], slo_p95_ms: float) -> None:
    _line(axes, steps, lambda step: step.p50_ms, BLUE, "o", "p50")
    _line(axes, steps, lambda step: step.p95_ms, ORANGE, "s", "p95")
    _line(axes, steps, lambda step: step.p99_ms, RED, "^", "p99")
    axes.axhline(slo_p95_ms, color="black", linewidth=1.2, label="target for p95")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,.0f}" if f"{value:.0e}"[0] in "25" else "")


def _server(axes: Axes, steps: Sequence[Step]) -> None:
    _line(axes, steps, lambda step: step.queue_ms, ORANGE, "s", "queue")
    _line(axes, steps, lambda step: step.compute_ms, BLUE, "o", "compute")
    _line(axes, steps, lambda step: step.decode_ms, GREEN, "^", "decoder")
    axes.set_ylim(bottom=0)
    batches = axes.twinx()
    batches.spines["right"].set_visible(True)
    _line(batches, steps, lambda step: step.batch, GREY, "D", "images per batch")
    batches.set_ylabel("Mean images per batch")
    batches.set_ylim(bottom=0)
    if batches.has_data():  # a legend knows the lines of its own axes alone
        axes.plot([], [], color=GREY, marker="D", linestyle="--", label="images per batch")
    if not (axes.has_data() or batches.has_data()):
        axes.text(0.5, 0.5, "Triton's metrics were not in reach", transform=axes.transAxes, ha="center")


def _usage(axes: Axes, steps: Sequence[Step], cores: int) -> None:
    _line(axes, steps, lambda s: None if s.server_cores is None else s.server_cores / cores, BLUE, "o", "server's CPU")
    _line(axes, steps, lambda step: step.gpu, GREEN, "^", "GPU")
    _line(axes, steps, lambda step: step.busy, ORANGE, "s", "model computing")
    _line(axes, steps, lambda step: step.generator_cpu, RED, "X", "load generator's core")
    if any(step.server_cores is not None for step in steps):
        _line(axes, steps, lambda step: step.other_cores / cores, GREY, "D", "other programs")
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _line(
    axes: Axes, steps: Sequence[Step], value: Callable[[Step], float | None], colour: str, marker: str, label: str
) -> None:
    """Each run a marker, and a line through the means of each load; grey ones are dashed."""
    points = [(step.offered, found) for step in steps if (found := value(step)) is not None and math.isfinite(found)]
    if not points:
        return
    loads = sorted({load for load, _ in points})
    means = [fmean(found for load, found in points if load == each) for each in loads]
    style = "--" if colour == GREY else "-"
    axes.plot(loads, means, color=colour, linewidth=1.4, linestyle=style, marker=marker, label=label)
    axes.scatter(*zip(*points, strict=True), color=colour, marker=marker, s=14, alpha=0.6)
