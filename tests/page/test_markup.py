"""What the page says of weights and scores."""

from __future__ import annotations

import csv

import pytest
from deepfake_client import Failure, ImageFormatError, Verdict
from deepfake_page.classification import Answer, ServedModel
from deepfake_page.markup import UNKNOWN, batch_results, csv_table, model_status, percent, verdict_card

NOT_TOLD = ServedModel(provenance=None, away=None)
ANSWERS = [
    Answer("a.jpg", Verdict("Deepfake", {"Deepfake": 0.75, "Real one": 0.25}, "a.jpg", "m", "1", "id"), 12.3, b"jpeg"),
    Answer("b.jpg", Failure("b.jpg", ImageFormatError("not an image")), 0.4, None),
]


def test_weights_of_unknown_origin_are_said_to_be() -> None:
    assert UNKNOWN in model_status(NOT_TOLD)
    assert UNKNOWN in verdict_card(ANSWERS[0], NOT_TOLD)
    assert UNKNOWN in batch_results(ANSWERS, NOT_TOLD)
    rows = list(csv.DictReader(csv_table(ANSWERS, NOT_TOLD).splitlines()))
    assert [row["weights"] for row in rows] == ["unknown", "unknown"]


@pytest.mark.parametrize(
    ("score", "shown"),
    [(0.5, "50.0%"), (0.9994, "99.9%"), (0.99996, "over 99.9%"), (1.0, "over 99.9%"), (0.00004, "under 0.1%")],
)
def test_no_score_is_shown_as_certain(score: float, shown: str) -> None:
    assert percent(score) == shown
