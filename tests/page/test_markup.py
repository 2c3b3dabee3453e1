"""What the page says of weights and scores."""

from __future__ import annotations

import csv

import pytest
from deepfake_client import Failure, ImageFormatError, Verdict
from deepfake_page.classification import Answer, ServedModel
from deepfake_page.markup import batch_results, csv_table, fragments, percent

NOT_TOLD = ServedModel(provenance=None, away=None)
ANSWERS = [
    Answer("a.jpg", Verdict("Deepfake", {"Deepfake": 0.75, "Real one": 0.25}, "a.jpg", "m", "1", "id"), 12.3, b"jpeg"),
    Answer("b.jpg", Failure("b.jpg", ImageFormatError("not an image")), 0.4, None),
]


def test_weights_of_unknown_origin_are_said_to_be() -> None:
    unknown = "Where the weights come from is not known."
    assert unknown in fragments.model_status(NOT_TOLD)
    assert unknown in fragments.verdict_card(ANSWERS[0], NOT_TOLD)
    assert unknown in batch_results(ANSWERS, NOT_TOLD)
    rows = list(csv.DictReader(csv_table(ANSWERS, NOT_TOLD).splitlines()))
    assert [row["weights"] for row in rows] == ["unknown", "unknown"]


def test_what_strangers_write_is_no_markup() -> None:
    failure = Failure("<b>", ImageFormatError("<script>{{ 1 }}</script>"))
    answer = Answer('"><img src=x>', failure, 0.4, None)
    shown = fragments.verdict_card(answer, NOT_TOLD) + batch_results([answer], NOT_TOLD)
    shown += fragments.model_status(ServedModel(None, "<script>"))
    for tag in ("<script", "<img", "<b>"):
        assert tag not in shown
    assert "&lt;script&gt;{{ 1 }}" in shown


@pytest.mark.parametrize(
    ("score", "shown"),
    [(0.5, "50.0%"), (0.9994, "99.9%"), (0.99996, "over 99.9%"), (1.0, "over 99.9%"), (0.00004, "under 0.1%")],
)
def test_no_score_is_shown_as_certain(score: float, shown: str) -> None:
    assert percent(score) == shown
