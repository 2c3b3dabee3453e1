"""What the page shows: the pieces of `fragments.html`, and the table of a batch."""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepfake_client import DeepfakeError, Failure, ImageError, ServerError, Verdict, WireError
from jinja2 import Environment, FileSystemLoader

from .classification import Answer, ServedModel

TITLE = "Deepfake or real?"
# A cell that begins with one of these is a formula to a spreadsheet, and a file may be called =HYPERLINK(…).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def batch_results(answers: Sequence[Answer], served: ServedModel) -> str:
    """Several answers: their count, the table to download, a gallery, and the table."""
    words = (_word(each.result) if isinstance(each.result, Verdict) else "no verdict" for each in answers)
    counts = ", ".join(f"{count} {word}" for word, count in Counter(words).items())
    summary = f"{len(answers)} image{'' if len(answers) == 1 else 's'}: {counts}."
    table = csv_table(answers, served).encode("utf-8-sig")
    return str(fragments.batch(summary, table, answers, _columns(answers), list(map(_row, answers)), served))


def csv_table(answers: Sequence[Answer], served: ServedModel) -> str:
    """A header, then a row for each answer.

    Columns: file, label, decision (with a policy), a score per label, ms, error, model, model_version, and `weights`,
    which is "stand-in (verdicts mean nothing)" where that is so and "unknown" where the server does not tell.
    """
    weights = "unknown" if served.provenance is None else served.provenance.weights
    if served.stand_in:
        weights += " (verdicts mean nothing)"
    text = io.StringIO()
    rows = csv.DictWriter(text, [*_columns(answers), "model", "model_version", "weights"], extrasaction="ignore")
    rows.writeheader()
    for answer in answers:
        row = _row(answer) | {"weights": weights}
        rows.writerow({column: _harmless(value) for column, value in row.items()})
    return text.getvalue()


def percent(score: float) -> str:
    """A score for people, never rounded to the certainty of 0 or 100 %."""
    if score >= 0.9995:
        return "over 99.9%"
    return "under 0.1%" if score < 0.0005 else f"{score:.1%}"


def _columns(answers: Sequence[Answer]) -> list[str]:
    verdicts = [answer.result for answer in answers if isinstance(answer.result, Verdict)]
    labels = verdicts[0].scores if verdicts else ()
    decision = ["decision"] if any(verdict.decision is not None for verdict in verdicts) else []
    return ["file", "label", *decision, *labels, "ms", "error"]


def _row(answer: Answer) -> dict[str, object]:
    result = answer.result
    if isinstance(result, Failure):
        return {"file": answer.name, "error": result.error.reason}
    return {
        "file": answer.name,
        "label": result.label,
        "decision": result.decision,
        **result.scores,
        "ms": round(answer.milliseconds),
        "error": "",
        "model": result.model,
        "model_version": result.model_version,
    }


def _word(verdict: Verdict) -> str:
    """What is shown as the verdict: the policy's decision where one is loaded."""
    return verdict.decision or verdict.label


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _data_url(content: bytes, kind: str) -> str:
    """`content` as an address that holds it, so that the page can show it without the server keeping it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _sentence(reason: str) -> str:
    """A reason of the client as a sentence of its own."""
    return f"{reason[:1].upper()}{reason[1:]}" + ("" if reason.endswith((".", "?", "!", "…")) else ".")


def _hint(error: DeepfakeError) -> str:
    if isinstance(error, ImageError):
        return "Choose another file."
    return "Try again in a moment." if isinstance(error, (ServerError, WireError)) else "Tell whoever runs this page."


def _load_fragments() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "data_url": _data_url, "hint": _hint, "percent": percent}
    environment.filters |= {"sentence": _sentence, "word": _word}
    return environment.get_template("fragments.html").module


#: The macros of `fragments.html`, to be called with their arguments.
fragments = _load_fragments()
