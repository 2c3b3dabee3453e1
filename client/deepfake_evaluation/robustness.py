"""The same measurement under each damage, side by side."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .damages import DAMAGES
from .intervals import Interval
from .measures import Measures, Sample, collect, measure
from .report import Part
from .run import Answers, EvaluationRun

UNDAMAGED = "none"
_COLUMNS = ("accuracy", "AUC")


@dataclass(frozen=True)
class Row:
    """What is left of the figures under one damage.

    Attributes:
        damage, parameters: which; `none` are the images as they are.
        images: how many were measured.
        failed: files to which this damage could not be done, with the reason; in no figure of the row.
        accuracy, auc: with their confidence intervals.
        recalls: share of each class that is still recognised.
    """

    damage: str
    parameters: str
    images: int
    accuracy: Interval
    auc: Interval
    recalls: dict[str, Interval]
    failed: list[tuple[str, str]]


def measure_robustness(
    run: EvaluationRun, answers: Answers, undamaged: Row, advance: Callable[[], None] = lambda: None
) -> list[Row]:
    """Have the readable images classified under each damage, and measure.

    Args:
        run: the evaluation that `answers` are of.
        answers: of the images as they are.
        undamaged: the row that is made of them, which comes first.
        advance: called after each image.

    Raises:
        EvaluationError: as `EvaluationRun.classify`.
    """
    rows = [undamaged]
    for damage in DAMAGES:
        key = f"{damage.name}: {damage.parameters}"
        sample = collect(run.classify_damaged(answers, key, damage.apply, advance), run.model.labels)
        rows.append(row(damage.name, damage.parameters, sample, measure(sample)))
    return rows


def row(damage: str, parameters: str, sample: Sample, measures: Measures) -> Row:
    """The figures of one damage that are compared."""
    failed = [] if damage == UNDAMAGED else sample.unreadable
    return Row(damage, parameters, sample.images, measures.accuracy, measures.auc, measures.recalls, failed)


def robustness_part(rows: Sequence[Row]) -> Part:
    """A table, the damages in the order of their registry."""
    labels = list(rows[0].recalls)
    width = max(len("damage"), *(len(each.damage) for each in rows))
    heads = [f"recall {label}" for label in labels]
    lines = ["  ".join([f"{'damage':{width}}  images", *(f"{name + ' (95 % CI)':22}" for name in _COLUMNS), *heads])]
    for each in rows:
        measured = [f"{each.accuracy.value:.4f} ({each.accuracy.low:.4f}–{each.accuracy.high:.4f})"]
        measured.append(f"{each.auc.value:.4f} ({each.auc.low:.4f}–{each.auc.high:.4f})")
        recalls = [f"{each.recalls[name].value:>{len(head)}.4f}" for name, head in zip(labels, heads, strict=True)]
        lines.append("  ".join([f"{each.damage:{width}}  {each.images:>6}", *measured, *recalls]))
    lines += [f"Not measured under {each.damage}: {file}: {error}" for each in rows for file, error in each.failed]
    figures = [
        {
            "damage": each.damage,
            "parameters": each.parameters,
            "images": each.images,
            "failed": [{"file": file, "error": error} for file, error in each.failed],
            "accuracy": each.accuracy._asdict(),
            "auc": each.auc._asdict(),
            "recall": {label: recall._asdict() for label, recall in each.recalls.items()},
        }
        for each in rows
    ]
    return Part("robustness", figures, "\n".join(lines))


def write_robustness(path: Path, rows: Sequence[Row], note: str | None) -> None:
    """The table as CSV; a note on the weights, where there is one, in a column of its own."""
    labels = list(rows[0].recalls)
    ends = ("", "_low", "_high")
    names = ["accuracy", "auc", *(f"recall {label}" for label in labels)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream)
        figures = [name + end for name in names for end in ends]
        lines.writerow(["damage", "parameters", "images", *figures, *(["note"] if note else [])])
        for each in rows:
            intervals = [each.accuracy, each.auc, *(each.recalls[label] for label in labels)]
            numbers = [number for interval in intervals for number in interval[:3]]
            lines.writerow([each.damage, each.parameters, each.images, *numbers, *([note] if note else [])])
