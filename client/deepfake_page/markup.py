"""HTML of the page: which model answers, and one answer. File names and messages come from strangers: all is escaped."""

from __future__ import annotations

import base64
from html import escape

from deepfake_client import DeepfakeError, Failure, ImageError, ServerError, Verdict, WireError

from .classification import Answer
from .served_model import ServedModel

UNSURE = "unsure"

TITLE = "Deepfake or real?"

HEADER = f"""<h1>{TITLE}</h1>
<p>Give it a photo of a face, and see whether the model takes it for generated or for real.</p>"""

STAND_IN = "Stand-in weights: the verdicts mean nothing."
UNKNOWN = "Where the weights come from is not known."

EMPTY = """<h2>Verdict</h2><div class="df-empty"><p>No image yet. The verdict appears here.</p></div>"""

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
        return _notice(
            "away",
            "The server is away.",
            f"{sentence(served.away)} Images get no verdict until it is back; this page notices by itself.",
        )
    provenance = served.provenance
    if provenance is None:
        return _notice("unknown", UNKNOWN, "The server tells nothing about them: do not rely on the verdicts.")
    warning = ""
    if served.stand_in:
        warning = _notice(
            "stand-in", STAND_IN, "This server runs seeded random numbers in place of a model, to try things out."
        )
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
    name = escape(answer.name)
    picture = ""
    if answer.thumbnail is not None:
        picture = f'<img src="{data_url(answer.thumbnail, "image/jpeg")}" alt="">'
    if isinstance(answer.result, Failure):
        reason = escape(sentence(answer.result.error.reason))
        body = f'<p class="df-word">No verdict</p><p>{reason}</p><p class="df-small">{_hint(answer.result.error)}</p>'
        kind = "error"
    else:
        body = _verdict_words(answer.result, answer.milliseconds)
        kind = kind_of(answer.result)
    mark = weights_mark(served)
    mark = f'<p class="df-mark">{mark}</p>' if mark else ""
    return f"""<h2>Verdict</h2>
<div class="df-card df-{kind}{"" if picture else " df-bare"}">{picture}<div>{mark}<p class="df-name">{name}</p>{body}</div></div>"""


def weights_mark(served: ServedModel) -> str:
    """What to print beside each verdict of such weights; empty where they are known and real."""
    if served.stand_in:
        return STAND_IN
    return UNKNOWN if served.provenance is None and served.away is None else ""


def decision_or_label(verdict: Verdict) -> str:
    """What is shown as the verdict: the policy's decision where one is loaded."""
    return verdict.label if verdict.decision is None else verdict.decision


def data_url(content: bytes, kind: str) -> str:
    """`content` as an address that holds it, so that the page can show it without the server keeping it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def percent(score: float) -> str:
    """A score for people, never rounded to the certainty of 0 or 100 %."""
    if score >= 0.9995:
        return "over 99.9%"
    return "under 0.1%" if score < 0.0005 else f"{score:.1%}"


def sentence(reason: str) -> str:
    """A reason of the client as a sentence of its own."""
    return f"{reason[:1].upper()}{reason[1:]}" + ("" if reason.endswith((".", "?", "!", "…")) else ".")


def _hint(error: DeepfakeError) -> str:
    if isinstance(error, ImageError):
        return "Choose another file."
    if isinstance(error, (ServerError, WireError)):
        return "Try again in a moment."
    return "Tell whoever runs this page."


def _verdict_words(verdict: Verdict, milliseconds: float) -> str:
    word = decision_or_label(verdict)
    why = ""
    if word == UNSURE:
        why = "<p>The loaded policy does not decide on scores like these.</p>"
    elif verdict.decision is not None:
        why = "<p>Decided by the loaded policy.</p>"
    meta = f"{milliseconds:.0f} ms · model version {escape(verdict.model_version)}"
    return f'<p class="df-word">{escape(word.capitalize())}</p>{why}{_scores(verdict)}<p class="df-small">{meta}</p>'


def _scores(verdict: Verdict) -> str:
    ranked = sorted(verdict.scores.items(), key=lambda item: item[1], reverse=True)
    rows = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{percent(score)}</dd>"
        f'<dd class="df-bar" aria-hidden="true"><span style="width:{score:.2%}"></span></dd></div>'
        for label, score in ranked
    )
    return f'<dl class="df-scores" aria-label="Scores">{rows}</dl>'


def kind_of(verdict: Verdict) -> str:
    """The class of style for it."""
    word = decision_or_label(verdict)
    return {"Deepfake": "deepfake", "Real one": "real"}.get(word, "unsure")


def _notice(kind: str, title: str, text: str) -> str:
    return f'<div class="df-notice df-{kind}"><strong>{escape(title)}</strong> {escape(text)}</div>'
