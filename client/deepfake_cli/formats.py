"""How verdicts are written to stdout: each as soon as it is there, and nothing but the result."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Protocol, TextIO

from deepfake_client import Failure, Verdict

ERROR = "error"
_DECISION_WIDTH = len("Deepfake")  # the longest one


class Writer(Protocol):
    """Writes results one by one; `close` ends what was begun. `decisions` says whether the verdicts have one."""

    def __init__(self, stream: TextIO, labels: Sequence[str], *, decisions: bool) -> None: ...

    def write(self, result: Verdict | Failure) -> None:
        """Write one result."""

    def close(self) -> None:
        """Write what follows the last one."""


class TableWriter:
    """Columns for a person: label, score, decision, source. The source comes last, as it may be long."""

    def __init__(self, stream: TextIO, labels: Sequence[str], *, decisions: bool) -> None:
        self._stream = stream
        self._width = max(map(len, [*labels, ERROR]))
        self._decisions = decisions
        self._header: str | None = f"{'label':{self._width}}  score   {self._decision('decision')}source\n"

    def write(self, result: Verdict | Failure) -> None:
        """One line."""
        if self._header is not None:
            self._stream.write(self._header)
            self._header = None
        if isinstance(result, Verdict):
            label, score, text = result.label, f"{result.score:6.4f}", result.source or "-"
            decision = result.decision or "-"
        else:
            label, score, text, decision = ERROR, f"{'-':6}", str(result.error), "-"
            if result.source and result.source not in text:
                text = f"{result.source}: {text}"
        self._stream.write(f"{label:{self._width}}  {score}  {self._decision(decision)}{_printable(text)}\n")

    def close(self) -> None:
        """Nothing follows."""

    def _decision(self, text: str) -> str:
        return f"{text:{_DECISION_WIDTH}}  " if self._decisions else ""


class JsonLinesWriter:
    """One JSON object a line."""

    def __init__(self, stream: TextIO, labels: Sequence[str], *, decisions: bool) -> None:  # noqa: ARG002 - all alike
        self._stream = stream

    def write(self, result: Verdict | Failure) -> None:
        """One line."""
        self._stream.write(json.dumps(result.to_dict()) + "\n")

    def close(self) -> None:
        """Nothing follows."""


class JsonWriter:
    """One JSON array, an object a line."""

    def __init__(self, stream: TextIO, labels: Sequence[str], *, decisions: bool) -> None:  # noqa: ARG002 - all alike
        self._stream = stream
        self._before = "[\n"

    def write(self, result: Verdict | Failure) -> None:
        """One element."""
        self._stream.write(f"{self._before}  {json.dumps(result.to_dict())}")
        self._before = ",\n"

    def close(self) -> None:
        """The end of the array."""
        self._stream.write("[]\n" if self._before == "[\n" else "\n]\n")


class CsvWriter:
    """A header, then a row each: source, label, a score per label, model, model_version, decision, error."""

    def __init__(self, stream: TextIO, labels: Sequence[str], *, decisions: bool) -> None:
        decision = ["decision"] if decisions else []
        columns = ["source", "label", *labels, "model", "model_version", *decision, "error"]
        self._rows = csv.DictWriter(stream, columns, lineterminator="\n")
        self._rows.writeheader()

    def write(self, result: Verdict | Failure) -> None:
        """One row."""
        row = result.to_dict()
        self._rows.writerow({**row.pop("scores", {}), **row})

    def close(self) -> None:
        """Nothing follows."""


WRITERS: dict[str, type[Writer]] = {
    "table": TableWriter,
    "json": JsonWriter,
    "jsonl": JsonLinesWriter,
    "csv": CsvWriter,
}


def _printable(text: str) -> str:
    # A file name may hold anything but a slash, also what steers a terminal.
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
