"""HTML of the page: which model answers, one answer, and several with a table to download.

File names and messages come from strangers: all is escaped.
"""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter
from collections.abc import Sequence
from html import escape

from deepfake_client import DeepfakeError, Failure, ImageError, ServerError, Verdict, WireError

from .classification import MAX_IMAGES, Answer, ServedModel

# A cell that begins with one of these is a formula to a spreadsheet, and a file may be called =HYPERLINK(…).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_HEADINGS = {"file": "File", "label": "Label", "decision": "Decision", "error": "Error"}

TITLE = "Deepfake or real?"

HEADER = f"""<h1>{TITLE}</h1>
<p>Give it a photo of a face, and see whether the model takes it for generated or for real.</p>"""

STAND_IN = "Stand-in weights: the verdicts mean nothing."
UNKNOWN = "Where the weights come from is not known."

EMPTY = """<h2>Verdict</h2><div class="df-empty"><p>No image yet. The verdict appears here.</p></div>"""
EMPTY_BATCH = """<h2>Verdicts</h2><div class="df-empty"><p>No images yet. The verdicts appear here, with a table to download.</p></div>"""

_NOTE = """<h2>What a verdict can tell, and what it cannot</h2>
<ul>
<li><strong>It is a hint, not evidence.</strong> Do not publish, accuse or clear anybody on a verdict alone.</li>
<li><strong>It errs both ways.</strong> A real photo can be called a deepfake, and a good deepfake real; generators newer
than the model the more so. How often was not measured independently.</li>
<li><strong>It knows faces.</strong> What it makes of other pictures, screenshots, collages and heavily compressed copies
was not measured. The original file is worth more than a copy from a chat.</li>
<li><strong>«Real one» says nothing about the story.</strong> A real photo can be old, cropped, staged or captioned falsely.</li>
<li><strong>A score is not a probability.</strong> 99 % does not mean that 99 of 100 such images are deepfakes.</li>
{policy}</ul>
<p>Images are held in memory until they are answered and are never stored.{record}</p>"""

_POLICY_NOTE = """<li><strong>«Unsure» is an answer.</strong> A decision policy is loaded, and between its thresholds it decides
nothing.</li>
"""
_RECORD_NOTE = " A record is kept of each verdict: its time, its scores, and a checksum of the image."


def note(*, policy: bool, recorded: bool) -> str:
    """What a verdict is worth, for people who are about to use one, and what is kept of it."""
    return _NOTE.format(policy=_POLICY_NOTE if policy else "", record=_RECORD_NOTE if recorded else "")


def model_status(served: ServedModel) -> str:
    """A warning where there is something to warn of, and below it what answers."""
    if served.away is not None:
        text = f"{_sentence(served.away)} Images get no verdict until it is back; this page notices by itself."
        return _notice("away", "The server is away.", text)
    provenance = served.provenance
    if provenance is None:
        return _notice("unknown", UNKNOWN, "The server tells nothing about them: do not rely on the verdicts.")
    text = "This server runs seeded random numbers in place of a model, to try things out."
    warning = _notice("stand-in", STAND_IN, text) if served.stand_in else ""
    facts = [
        ("Model", served.model_name),
        ("Version", provenance.model_version),
        ("Revision", (provenance.revision or "")[:12]),
        ("Precision", provenance.precision),
        ("SHA-256", provenance.model_pt_sha256[:12]),
    ]
    rows = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts if value)
    return f'{warning}<dl class="df-facts">{rows}</dl>'


def verdict_card(answer: Answer, served: ServedModel) -> str:
    """One answer: the picture, the verdict in words, and how long it took."""
    picture = _picture(answer)
    if isinstance(answer.result, Failure):
        kind, error = "error", answer.result.error
        body = f"""<p class="df-word">No verdict</p><p>{escape(_sentence(error.reason))}</p>\
<p class="df-small">{_hint(error)}</p>"""
    else:
        verdict, why = answer.result, ""
        kind, word = _kind(verdict), _word(verdict)
        if word == "unsure":
            why = "<p>The loaded policy does not decide on scores like these.</p>"
        elif verdict.decision is not None:
            why = "<p>Decided by the loaded policy.</p>"
        scores = "".join(
            f"<div><dt>{escape(label)}</dt><dd>{percent(score)}</dd>"
            f'<dd class="df-bar" aria-hidden="true"><span style="width:{score:.2%}"></span></dd></div>'
            for label, score in sorted(verdict.scores.items(), key=lambda item: item[1], reverse=True)
        )
        body = f"""<p class="df-word">{escape(word.capitalize())}</p>{why}\
<dl class="df-scores" aria-label="Scores">{scores}</dl>\
<p class="df-small">{answer.milliseconds:.0f} ms · model version {escape(verdict.model_version)}</p>"""
    return f"""<h2>Verdict</h2>
<div class="df-card df-{kind}{"" if picture else " df-bare"}">{picture}<div>{_weights_mark(served)}\
<p class="df-name">{escape(answer.name)}</p>{body}</div></div>"""


def progress(done: int, total: int) -> str:
    """How far a batch is, while the answers come; not read aloud, as the result will be."""
    return f"""<div aria-live="off"><h2>Verdicts</h2><p><label>{done} of {total} images<br>
<progress max="{total}" value="{done}"></progress></label></p></div>"""


def too_many(count: int) -> str:
    """What is said to a batch that is over the limit."""
    return f"""<h2>Verdicts</h2><div class="df-notice df-away"><strong>{count} images are too many.</strong>
At most {MAX_IMAGES} are taken at once: choose fewer.</div>"""


def batch_results(answers: Sequence[Answer], served: ServedModel) -> str:
    """Several answers: their count, the table to download, a gallery, and the table."""
    words = ("no verdict" if isinstance(each.result, Failure) else _word(each.result) for each in answers)
    counts = ", ".join(f"{count} {word}" for word, count in Counter(words).items())
    images = "1 image" if len(answers) == 1 else f"{len(answers)} images"
    content = _data_url(csv_table(answers, served).encode("utf-8-sig"), "text/csv;charset=utf-8")
    return f"""<h2>Verdicts</h2><p class="df-summary">{escape(f"{images}: {counts}.")}</p>{_weights_mark(served)}
<p><a class="df-download" href="{content}" download="verdicts.csv">Download the table (CSV)</a></p>
<ul class="df-gallery" aria-label="Gallery">{"".join(map(_figure, answers))}</ul>
<div class="df-scroll" role="region" aria-label="Table of verdicts" tabindex="0">{_table(answers)}</div>"""


def csv_table(answers: Sequence[Answer], served: ServedModel) -> str:
    """A header, then a row for each answer.

    Columns: file, label, decision (with a policy), a score per label, ms, error, model, model_version, and `weights`,
    which is "stand-in (verdicts mean nothing)" where that is so and "unknown" where the server does not tell.
    """
    columns = [*_columns(answers), "model", "model_version", "weights"]
    weights = "unknown" if served.provenance is None else served.provenance.weights
    if served.stand_in:
        weights += " (verdicts mean nothing)"
    text = io.StringIO()
    rows = csv.DictWriter(text, columns, extrasaction="ignore")
    rows.writeheader()
    for answer in answers:
        row = _row(answer) | {"weights": weights}
        rows.writerow({column: _cell(value) for column, value in row.items()})
    return text.getvalue()


def percent(score: float) -> str:
    """A score for people, never rounded to the certainty of 0 or 100 %."""
    if score >= 0.9995:
        return "over 99.9%"
    return "under 0.1%" if score < 0.0005 else f"{score:.1%}"


def _figure(answer: Answer) -> str:
    name = escape(answer.name)
    kind, word, score = "error", "No verdict", ""
    if isinstance(answer.result, Verdict):
        verdict = answer.result
        kind, word = _kind(verdict), _word(verdict)
        # Beside another decision a score alone would be taken for that decision's.
        score = percent(verdict.score) if word == verdict.label else f"{verdict.label} {percent(verdict.score)}"
    picture = _picture(answer) or '<div class="df-no-picture" aria-hidden="true">?</div>'
    lines = "".join(f"<span>{line}</span>" for line in (escape(score), name) if line)
    return f"""<li><figure class="df-{kind}">{picture}<figcaption title="{name}">\
<strong>{escape(word.capitalize())}</strong>{lines}</figcaption></figure></li>"""


def _table(answers: Sequence[Answer]) -> str:
    columns = _columns(answers)
    head = "".join(f'<th scope="col">{escape(_HEADINGS.get(column, column))}</th>' for column in columns)
    rows = []
    for row in map(_row, answers):
        name, *cells = (escape(_shown(row.get(column))) for column in columns)
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    return f"<table><caption>Verdicts of the model</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


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


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _picture(answer: Answer) -> str:
    if answer.thumbnail is None:
        return ""
    return f'<img src="{_data_url(answer.thumbnail, "image/jpeg")}" alt="">'


def _data_url(content: bytes, kind: str) -> str:
    """`content` as an address that holds it, so that the page can show it without the server keeping it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _weights_mark(served: ServedModel) -> str:
    """What stands beside each verdict of such weights; empty where they are known and real."""
    if served.stand_in:
        return f'<p class="df-mark">{STAND_IN}</p>'
    return f'<p class="df-mark">{UNKNOWN}</p>' if served.provenance is None and served.away is None else ""


def _word(verdict: Verdict) -> str:
    """What is shown as the verdict: the policy's decision where one is loaded."""
    return verdict.label if verdict.decision is None else verdict.decision


def _kind(verdict: Verdict) -> str:
    """The class of style for it."""
    return {"Deepfake": "deepfake", "Real one": "real"}.get(_word(verdict), "unsure")


def _sentence(reason: str) -> str:
    """A reason of the client as a sentence of its own."""
    return f"{reason[:1].upper()}{reason[1:]}" + ("" if reason.endswith((".", "?", "!", "…")) else ".")


def _hint(error: DeepfakeError) -> str:
    if isinstance(error, ImageError):
        return "Choose another file."
    return "Try again in a moment." if isinstance(error, (ServerError, WireError)) else "Tell whoever runs this page."


def _notice(kind: str, title: str, text: str) -> str:
    return f'<div class="df-notice df-{kind}"><strong>{escape(title)}</strong> {escape(text)}</div>'
