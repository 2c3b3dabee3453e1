"""HTML of several answers: a gallery, a table, and the table to download."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape

from deepfake_client import Failure, Verdict

from .classification import MAX_IMAGES, Answer
from .markup import data_url, decision_or_label, kind_of, percent, weights_mark
from .served_model import ServedModel

# A cell that begins with one of these is a formula to a spreadsheet, and a file may be called =HYPERLINK(…).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_HEADINGS = {"file": "File", "label": "Label", "decision": "Decision", "error": "Error"}

EMPTY = """<h2>Verdicts</h2><div class="df-empty"><p>No images yet. The verdicts appear here, with a table to download.</p></div>"""


def progress(done: int, total: int) -> str:
    """How far it is, while the answers come; not read aloud, as the result will be."""
    return f"""<div aria-live="off"><h2>Verdicts</h2><p><label>{done} of {total} images<br>
<progress max="{total}" value="{done}"></progress></label></p></div>"""


def too_many(count: int) -> str:
    """What is said to a batch that is over the limit."""
    return f"""<h2>Verdicts</h2><div class="df-notice df-away"><strong>{count} images are too many.</strong>
At most {MAX_IMAGES} are taken at once: choose fewer.</div>"""


def batch_results(answers: Sequence[Answer], served: ServedModel) -> str:
    """All of it, with what was counted first."""
    mark = weights_mark(served)
    notice = f'<p class="df-mark">{mark}</p>' if mark else ""
    content = data_url(csv_table(answers, served).encode("utf-8-sig"), "text/csv;charset=utf-8")
    return f"""<h2>Verdicts</h2><p class="df-summary">{escape(_summary(answers))}</p>{notice}
<p><a class="df-download" href="{content}" download="verdicts.csv">Download the table (CSV)</a></p>
<ul class="df-gallery" aria-label="Gallery">{"".join(map(_figure, answers))}</ul>
<div class="df-scroll" role="region" aria-label="Table of verdicts" tabindex="0">{_table(answers)}</div>"""


def _summary(answers: Sequence[Answer]) -> str:
    counts: dict[str, int] = {}
    for answer in answers:
        word = "no verdict" if isinstance(answer.result, Failure) else decision_or_label(answer.result)
        counts[word] = counts.get(word, 0) + 1
    images = "1 image" if len(answers) == 1 else f"{len(answers)} images"
    return f"{images}: " + ", ".join(f"{count} {word}" for word, count in counts.items()) + "."


def _figure(answer: Answer) -> str:
    name = escape(answer.name)
    kind, word, score = "error", "No verdict", ""
    if isinstance(answer.result, Verdict):
        verdict = answer.result
        word = decision_or_label(verdict)
        kind = kind_of(verdict)
        # Beside another decision a score alone would be taken for that decision's.
        score = percent(verdict.score) if word == verdict.label else f"{verdict.label} {percent(verdict.score)}"
    picture = '<div class="df-no-picture" aria-hidden="true">?</div>'
    if answer.thumbnail is not None:
        picture = f'<img src="{data_url(answer.thumbnail, "image/jpeg")}" alt="">'
    lines = "".join(f"<span>{line}</span>" for line in (escape(score), name) if line)
    return (
        f'<li><figure class="df-{kind}">{picture}<figcaption title="{name}"><strong>{escape(word.capitalize())}</strong>'
        f"{lines}</figcaption></figure></li>"
    )


def _columns(answers: Sequence[Answer]) -> list[str]:
    verdicts = [answer.result for answer in answers if isinstance(answer.result, Verdict)]
    labels = list(verdicts[0].scores) if verdicts else []
    decision = ["decision"] if any(verdict.decision is not None for verdict in verdicts) else []
    return ["file", "label", *decision, *labels, "ms", "error"]


def _row(answer: Answer) -> dict[str, object]:
    if isinstance(answer.result, Failure):
        return {"file": answer.name, "error": answer.result.error.reason}
    verdict = answer.result
    row: dict[str, object] = {
        "file": answer.name,
        "label": verdict.label,
        "decision": verdict.decision,
        **verdict.scores,
    }
    return row | {
        "ms": round(answer.milliseconds),
        "error": "",
        "model": verdict.model,
        "model_version": verdict.model_version,
    }


def _table(answers: Sequence[Answer]) -> str:
    columns = _columns(answers)
    head = "".join(f'<th scope="col">{escape(_HEADINGS.get(column, column))}</th>' for column in columns)
    rows = []
    for row in map(_row, answers):
        name, *cells = (escape(_shown(row.get(column))) for column in columns)
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    return f"<table><caption>Verdicts of the model</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def csv_table(answers: Sequence[Answer], served: ServedModel) -> str:
    """A header, then a row for each answer.

    Columns: file, label, decision (with a policy), a score per label, ms, error, model, model_version, and `weights`,
    which is "stand-in (verdicts mean nothing)" where that is so and "unknown" where the server does not tell.
    """
    columns = [*_columns(answers), "model", "model_version", "weights"]
    weights = "stand-in (verdicts mean nothing)" if served.stand_in else served.weights
    text = io.StringIO()
    rows = csv.DictWriter(text, columns, extrasaction="ignore")
    rows.writeheader()
    for answer in answers:
        row = _row(answer) | {"weights": weights}
        rows.writerow({column: _cell(value) for column, value in row.items()})
    return text.getvalue()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
