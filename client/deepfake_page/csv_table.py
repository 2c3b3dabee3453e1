"""The table to download."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from deepfake_client import Failure

from .classification import Answer
from .served_model import ServedModel

# A cell that begins with one of these is a formula to a spreadsheet, and a file may be called =HYPERLINK(…).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_table(answers: Sequence[Answer], labels: Sequence[str], served: ServedModel) -> str:
    """A header, then a row for each answer.

    Columns: file, label, decision (with a policy), a score per label, ms, error, model, model_version, and `weights`,
    which is "stand-in (verdicts mean nothing)" where that is so and "unknown" where the server does not tell.
    """
    decided = any(answer.result.ok and answer.result.decision is not None for answer in answers)
    decision = ["decision"] if decided else []
    columns = ["file", "label", *decision, *labels, "ms", "error", "model", "model_version", "weights"]
    weights = "stand-in (verdicts mean nothing)" if served.stand_in else served.weights
    text = io.StringIO()
    rows = csv.DictWriter(text, columns)
    rows.writeheader()
    for answer in answers:
        row: dict[str, Any] = {"file": answer.name, "weights": weights}
        if isinstance(answer.result, Failure):
            row["error"] = answer.result.error.reason
        else:
            verdict = answer.result
            row |= {"label": verdict.label, **verdict.scores, "ms": round(answer.milliseconds)}
            row |= {"model": verdict.model, "model_version": verdict.model_version}
            if decided:
                row["decision"] = verdict.decision
        rows.writerow({column: _cell(value) for column, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
