"""How verdicts are written to stdout: each as soon as it is there, and nothing but the result."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import TextIO

from deepfake_client import Failure, Verdict

ERROR = "error"
_DECISION_WIDTH = len("Deepfake")  # the longest one


class Writer:
    """Writes results one by one; `close` ends what was begun.

    Args:
        stream: where to.
        labels: of the model's classes, by index.
        decisions: whether the verdicts have one.
    """

    def __init__(self, stream: TextIO, labels: Sequence[str], *, decisions: bool) -> None:
        self._stream, self._labels, self._decisions = stream, labels, decisions
        self._begun = False

    def write(self, result: Verdict | Failure) -> None:
        """One JSON object a line."""
        self._stream.write(json.dumps(result.to_dict()) + "\n")

    def close(self) -> None:
        """Write what follows the last one."""


class TableWriter(Writer):
    """Columns for a person: label, score, decision, source. The source comes last, as it may be long."""

    def write(self, result: Verdict | Failure) -> None:
        if not self._begun:
            self._line("label", "score", "decision", "source")
            self._begun = True
        if isinstance(result, Verdict):
            self._line(result.label, f"{result.score:6.4f}", result.decision or "-", result.source or "-")
        else:
            text = str(result.error)
            if result.source and result.source not in text:
                text = f"{result.source}: {text}"
            self._line(ERROR, "-", "-", text)

    def _line(self, label: str, score: str, decision: str, text: str) -> None:
        width = max(map(len, [*self._labels, ERROR]))
        decided = f"{decision:{_DECISION_WIDTH}}  " if self._decisions else ""
        self._stream.write(f"{label:{width}}  {score:6}  {decided}{_printable(text)}\n")


class JsonWriter(Writer):
    """One JSON array, an object a line."""

    def write(self, result: Verdict | Failure) -> None:
        self._stream.write(f"{',' if self._begun else '['}\n  {json.dumps(result.to_dict())}")
        self._begun = True

    def close(self) -> None:
        self._stream.write("\n]\n" if self._begun else "[]\n")


class CsvWriter(Writer):
    """A header, then a row each: source, label, a score per label, model, model_version, decision, error."""

    def __init__(self, stream: TextIO, labels: Sequence[str], *, decisions: bool) -> None:
        super().__init__(stream, labels, decisions=decisions)
        decision = ["decision"] if decisions else []
        columns = ["source", "label", *labels, "model", "model_version", *decision, "error"]
        self._rows = csv.DictWriter(stream, columns, lineterminator="\n")
        self._rows.writeheader()

    def write(self, result: Verdict | Failure) -> None:
        row = result.to_dict()
        self._rows.writerow({**row.pop("scores", {}), **row})


#: By the name that --format takes.
WRITERS: dict[str, type[Writer]] = {
    "table": TableWriter,
    "json": JsonWriter,
    "jsonl": Writer,
    "csv": CsvWriter,
}


def _printable(text: str) -> str:
    # A file name may hold anything but a slash, also what steers a terminal.
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
