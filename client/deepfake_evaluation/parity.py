"""What the server said, beside what transformers says of the same files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfake_client._errors import one_line

from .intervals import proportion
from .predictions import Prediction

_SHOWN = 20  # lines that a person reads; report.json has them all


@dataclass(frozen=True)
class LabelChange:
    """An image for which the two have different labels; scores in the order of the labels."""

    file: str
    server: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def distance_from_half(self) -> float:
        """How far the reference's score of the first label is from one half, where a small difference decides."""
        return abs(self.reference[0] - 0.5)


@dataclass(frozen=True)
class Parity:
    """The differences over all images that both could read.

    Attributes:
        labels: in the order of the scores.
        images: how many were compared.
        max_difference, mean_difference: of the probabilities; of an image counts the label that differs most.
        changes: every image with another label.
        unread: (file, error) of images that the server classified and transformers could not read.
    """

    labels: tuple[str, ...]
    images: int
    max_difference: float
    mean_difference: float
    changes: list[LabelChange]
    unread: list[tuple[str, str]]

    def figures(self) -> dict[str, Any]:
        """For `report.json`."""
        return {
            "images": self.images,
            "max_probability_difference": self.max_difference,
            "mean_probability_difference": self.mean_difference,
            "labels_changed": {
                "count": len(self.changes),
                "share": proportion(len(self.changes), self.images)._asdict() if self.images else None,
                "max_distance_from_half": max((each.distance_from_half for each in self.changes), default=None),
                "files": [
                    {"file": each.file, "server": self._scores(each.server), "reference": self._scores(each.reference)}
                    for each in self.changes
                ],
            },
            "unread": [{"file": file, "error": error} for file, error in self.unread],
        }

    def lines(self) -> list[str]:
        """For a person."""
        if not self.images:
            return ["No image was compared."]
        share = proportion(len(self.changes), self.images)
        changed = f"Labels changed: {len(self.changes)} of {self.images}, {share}"
        if self.changes:
            farthest = max(each.distance_from_half for each in self.changes)
            changed += f"; at most {farthest:.4f} from one half in transformers"
        lines = [
            f"{self.images} images, max |Δprobability| {self.max_difference:.1e}, mean {self.mean_difference:.1e}",
            changed,
        ]
        for each in self.changes[:_SHOWN]:
            server, reference = (_named(self.labels, scores) for scores in (each.server, each.reference))
            lines.append(f"  {one_line(each.file, 200)}: server {server}, transformers {reference}")
        if len(self.changes) > _SHOWN:
            lines.append(f"  … and {len(self.changes) - _SHOWN} more, see report.json")
        if self.unread:
            lines.append(f"Not read by transformers, and not compared: {len(self.unread)}, see report.json")
        return lines

    def _scores(self, scores: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.labels, scores, strict=True))


def compare(
    predictions: Iterable[Prediction],
    labels: Sequence[str],
    folder: Path,
    reference: Callable[[Path], Sequence[float]],
    advance: Callable[[], None] = lambda: None,
) -> Parity:
    """Run the images that have scores through `reference`, one after the other.

    Args:
        predictions: of the server.
        labels: in the order of the scores.
        folder: that the files lie below.
        reference: probabilities of one file, in the same order.
        advance: called after each prediction.
    """
    images, total, largest = 0, 0.0, 0.0
    changes: list[LabelChange] = []
    unread: list[tuple[str, str]] = []
    for each in predictions:
        if each.scores is not None:
            try:
                expected = tuple(reference(folder / each.file))
                if not all(map(math.isfinite, expected)):
                    raise ValueError("its probabilities are not finite")
            except Exception as error:  # Pillow raises as many kinds as it has decoders
                unread.append((each.file, " ".join(str(error).split()) or type(error).__name__))
            else:
                difference = max(abs(a - b) for a, b in zip(each.scores, expected, strict=True))
                images, total, largest = images + 1, total + difference, max(largest, difference)
                if _label_of(labels, each.scores) != _label_of(labels, expected):
                    changes.append(LabelChange(each.file, each.scores, expected))
        advance()
    return Parity(tuple(labels), images, largest, total / images if images else 0.0, changes, unread)


def _label_of(labels: Sequence[str], scores: Sequence[float]) -> str:
    return labels[scores.index(max(scores))]


def _named(labels: Sequence[str], scores: Sequence[float]) -> str:
    return f"{_label_of(labels, scores)} {max(scores):.4f}"
