"""What the server said of each labelled image, and the file `predictions.csv` that holds it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError

_BEFORE_SCORES = ["file", "label", "predicted"]
_AFTER_SCORES = ["error"]
_NOTE = "note"
# A file name may be no valid UTF-8; this way it can be opened again by what is read back.
_TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image of a labelled folder.

    Attributes:
        file: path below the evaluated folder, with slashes; its first part is the label's folder.
        label: the true label, as the folder tells it.
        scores: probability of each class in the order of the model's labels; None where the image could not be used.
        error: why it could not; None where there are scores.
    """

    file: str
    label: str
    scores: tuple[float, ...] | None
    error: str | None

    def predicted(self, labels: Sequence[str]) -> str | None:
        """The label with the highest score, of two equal ones the first, as the client chooses it."""
        return None if self.scores is None else labels[self.scores.index(max(self.scores))]


def write_predictions(
    path: Path, labels: Sequence[str], predictions: Iterable[Prediction], note: str | None = None
) -> None:
    """Write CSV as RFC 4180 has it: file, label, predicted, a column with the score of each label, error.

    Where there is something to say of the weights, a last column `note` says it in each row.

    Every cell is a label, a number, our own words, or a path that begins with a label, so that none is taken for a
    formula by a spreadsheet, whatever the files are called. Scores have all their digits.
    """
    with path.open("w", **_TEXT) as stream:  # type: ignore[call-overload]
        rows = csv.writer(stream)
        last = [] if note is None else [note]
        rows.writerow([*_BEFORE_SCORES, *labels, *_AFTER_SCORES, *(_NOTE for _ in last)])
        for each in predictions:
            scores = each.scores or [""] * len(labels)
            rows.writerow([each.file, each.label, each.predicted(labels) or "", *scores, each.error or "", *last])


@contextmanager
def open_predictions(path: Path) -> Iterator[tuple[tuple[str, ...], Iterator[Prediction]]]:
    """The labels of a `predictions.csv`, and its predictions one by one while the file is open.

    Raises:
        InputError: it cannot be read, or is no such file; also while the predictions are read.
    """
    try:
        stream = path.open("r", **_TEXT)  # type: ignore[call-overload]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    with stream:
        rows = csv.reader(stream)
        header = next(rows, [])
        noted = header[-1:] == [_NOTE]
        if noted:
            header.pop()
        labels = tuple(header[len(_BEFORE_SCORES) : -len(_AFTER_SCORES)])
        if not labels or header != [*_BEFORE_SCORES, *labels, *_AFTER_SCORES]:
            raise InputError(f"{path}: not a predictions.csv of `deepfake evaluate`")
        yield labels, (_parse(row[: -1 if noted else None], labels, f"{path}, line {rows.line_num}") for row in rows)


def _parse(row: list[str], labels: Sequence[str], where: str) -> Prediction:
    try:
        file, label, _, *scores, error = row
        given = None if error else tuple(map(float, scores))
        if len(scores) != len(labels) or label not in labels:
            raise ValueError
    except ValueError:
        raise InputError(f"{where}: not a line of a predictions.csv") from None
    return Prediction(file, label, given, error or None)
