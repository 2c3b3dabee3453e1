"""What was measured, from one visit to a server to the whole comparison."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests.studies.model_speed.figures import Figure


@dataclass(frozen=True, slots=True)
class Measurement:
    """One way of classifying, with so many callers, in one round."""

    contestant: str
    precision: str
    callers: int
    round: int
    images_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    answers: int
    errors: dict[str, int]
    memory_mib: float
    """Peak of the server's processes together, until then."""


@dataclass(frozen=True, slots=True)
class Wire:
    """Bytes that TCP carried for one image, on connections that were open before."""

    sent: float
    received: float


@dataclass(frozen=True, slots=True)
class Summary:
    """All rounds of one way of classifying, with so many callers."""

    images_per_second: Figure
    p50_ms: float | None
    p99_ms: Figure | None
    answers: int
    errors: Counter[str]
    memory_mib: float

    @classmethod
    def of(cls, measured: list[Measurement]) -> Summary:
        p50 = [each.p50_ms for each in measured if each.p50_ms is not None]
        p99 = [each.p99_ms for each in measured if each.p99_ms is not None]
        errors: Counter[str] = Counter()
        for each in measured:
            errors.update(each.errors)
        return cls(
            Figure(tuple(each.images_per_second for each in measured)),
            statistics.median(p50) if p50 else None,
            Figure(tuple(p99)) if p99 else None,
            sum(each.answers for each in measured),
            errors,
            max(each.memory_mib for each in measured),
        )


@dataclass(slots=True)
class Comparison:
    """Everything that the table, the plot and the judge need."""

    command: str
    rounds_wanted: int
    seconds: float
    callers: list[int]
    circumstances: list[str]
    precisions: list[str]
    contestants: list[str]
    """Keys of those that were asked for, in the table's order."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages in the peers' environment."""
    rounds: int = 0
    """That were finished."""
    measured: list[Measurement] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Why a contestant has no figures: by key, or key and precision."""
    wire: dict[str, Wire] = field(default_factory=dict)
    ceiling: dict[str, list[float]] = field(default_factory=dict)
    """Images per second of the bare model at its best batch size, by precision, for each round."""
    ceiling_batch: dict[str, int] = field(default_factory=dict)

    def summary(self, contestant: str, precision: str, callers: int) -> Summary | None:
        """None where nothing was measured."""
        found = [
            each
            for each in self.measured
            if (each.contestant, each.precision, each.callers) == (contestant, precision, callers)
        ]
        return Summary.of(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
