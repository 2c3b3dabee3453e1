"""A figure that was measured several times."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """The rounds of one measurement."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def overlaps(self, other: Figure) -> bool:
        """Whether the two ranges of rounds meet, so that neither is surely the higher."""
        return min(self.rounds) <= max(other.rounds) and min(other.rounds) <= max(self.rounds)

    def __str__(self) -> str:
        """Median, and the lowest and highest round."""
        digits = 0 if self.median >= 1000 else 1 if self.median >= 100 else 2
        low, high = min(self.rounds), max(self.rounds)
        return f"{self.median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def ratio(rounds: Sequence[float], ceilings: Sequence[float]) -> Figure:
    """Each round over the same round of the ceiling: what slows the machine for a while slows both."""
    return Figure(tuple(value / ceiling for value, ceiling in zip(rounds, ceilings, strict=True)))
