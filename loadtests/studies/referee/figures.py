"""What a run measured, and whether two tools agree over several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class RunError(Exception):
    """A run that measured nothing to compare; str() says why, and the way out."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one tool."""

    distinct_images: int | None
    """Requests, each with an image of its own; None where they were not recorded one by one."""
    throughput: float
    """Images per second."""
    p50_ms: float
    mean_ms: float
    printed_throughput: float
    """What the tool prints itself: perf_analyzer over whole windows, Locust from the first answer to the last."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure, of all rounds: perf_analyzer's median over Locust's."""

    ratio: float
    agrees: bool


def compare(referee: Sequence[float], ours: Sequence[float], tolerance: float) -> Comparison:
    """The ratio of the medians; they agree where it is within 1 ± `tolerance`, whichever is taken for the base.

    Raises:
        ValueError: nothing to compare.
    """
    if not referee or not ours:
        raise ValueError("no rounds to compare")
    ratio = statistics.median(referee) / statistics.median(ours)
    return Comparison(ratio, max(ratio, 1 / ratio) <= 1 + tolerance)


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def table(
    rounds: dict[str, tuple[Sequence[Figures], Sequence[Figures]]], tolerance: float
) -> tuple[list[str], list[str]]:
    """The lines to print for (perf_analyzer's, Locust's) runs of each load, and those figures that do not agree."""
    columns: list[tuple[str, Callable[[Figures], float], bool]] = [
        ("images/s", lambda run: run.throughput, True),
        ("p50 ms", lambda run: run.p50_ms, True),
        ("mean ms", lambda run: run.mean_ms, False),
    ]
    lines = [f"{'':22}{'':10}{'perf_analyzer':>26}{'Locust':>26}{'ratio':>8}"]
    apart: list[str] = []
    for load, (referee, ours) in rounds.items():
        for name, of, judged in columns:
            theirs, own = [of(run) for run in referee], [of(run) for run in ours]
            found = compare(theirs, own, tolerance)
            if judged and not found.agrees:
                apart.append(f"{load}: {name}, ratio {found.ratio:.3f}")
            shown = ("agrees" if found.agrees else "APART") if judged else "not judged"
            lines.append(f"{load:22}{name:10}{spread(theirs):>26}{spread(own):>26}{found.ratio:8.3f}  {shown}")
        printed = [spread([run.printed_throughput for run in runs]) for runs in (referee, ours)]
        lines.append(f"{load:22}{'printed':10}{printed[0]:>26}{printed[1]:>26}")
    return lines, apart
