"""The served model beside the bare one and the card's code: measured for real with a small checkpoint, and judged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from deepfake_deploy.export import Precision

from loadtests.studies import ceiling
from loadtests.studies.model_speed.served import ServedRun


def contest(bare: list[float], served: list[float], precision: Precision = Precision.BF16) -> ceiling.Contest:
    nothing: Any = None
    runs = [ServedRun(rate, 8.0, 100.0, 900.0, 0.98, 0.02, 600.0) for rate in served]
    return ceiling.Contest(precision, nothing, nothing, 8, bare, runs)


def test_a_small_checkpoint_is_measured_and_its_table_written(
    checkpoint: Path,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "ceiling.md"
    arguments = ["--model", str(checkpoint), "--repository", str(repository), "--precision", "fp32", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["ceiling.py", *arguments, "--seconds", "0.5", "--output", str(page)])
    # A small model computes in a millisecond, so that most of a request is not the model: only the way is tried here.
    monkeypatch.setattr(ceiling, "SERVED_SHARE", 0.0)
    monkeypatch.setattr(ceiling, "BATCHES", (4, 8))
    with pytest.raises(SystemExit) as ended:
        ceiling.main()
    assert ended.value.code == 0
    text = page.read_text()
    assert capsys.readouterr().out == text
    row = next(line for line in text.splitlines() if line.startswith("| fp32"))
    _, bare, served, share, lead, batch, busy, _ = (cell.strip() for cell in row.strip("|").split("|"))
    rates = [float(cell.split()[0]) for cell in (bare, served, share, lead)]
    assert all(rate > 0 for rate in rates)
    assert rates[2] == pytest.approx(rates[1] / rates[0], rel=0.05)
    assert 1 <= float(batch) <= 8
    assert 0 < float(busy.rstrip("%")) <= 100


def test_a_served_model_near_the_bare_one_is_enough() -> None:
    assert ceiling.judge([contest([9.0, 9.0], [8.7, 8.6])], [3.0, 3.0], Precision.BF16) == []


def test_a_served_model_that_loses_too_much_is_named() -> None:
    missed = ceiling.judge([contest([9.0, 9.0], [8.4, 8.5])], [3.0, 3.0], Precision.BF16)
    assert len(missed) == 1
    assert "of the bare model, under 0.95" in missed[0]


def test_the_card_is_held_against_the_best_precision_alone() -> None:
    contests = [contest([4.0], [3.9], Precision.FP32), contest([9.0], [8.9])]
    assert ceiling.judge(contests, [4.0], Precision.BF16) == []
    missed = ceiling.judge(contests, [5.0], Precision.BF16)
    assert len(missed) == 1
    assert missed[0].startswith("bf16: served 1.78")


def test_what_was_missed_stands_on_the_page() -> None:
    lines = ceiling.report(["head"], [contest([9.0], [8.0])], [3.0], ["bf16: too slow"])
    assert lines[-1] == "Missed: bf16: too slow."
