"""How answers that come in batches are counted, and how rounds become figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.studies.model_speed.figures import Figure, ratio
from loadtests.studies.model_speed.report import markdown_table, write_report
from loadtests.traffic.rate import answers_per_second


def test_a_batch_is_counted_from_the_one_before_it() -> None:
    # Eight answers together every second: eight a second, whichever moment the window begins and ends at.
    answers = [batch + index * 0.001 for batch in range(4) for index in range(8)]
    assert answers_per_second(answers) == pytest.approx(8, rel=0.01)
    assert answers_per_second(list(reversed(answers))) == answers_per_second(answers)


@pytest.mark.parametrize("answers", [[], [5.0], [5.0, 5.01]])
def test_one_batch_alone_has_no_rate(answers: list[float]) -> None:
    assert answers_per_second(answers) == 0


def test_a_figure_shows_its_median_and_its_spread() -> None:
    assert str(Figure((8.0, 9.5, 8.25))) == "8.25 (8.00–9.50)"
    assert str(Figure((1200.4, 1300.0, 1100.0))) == "1200 (1100–1300)"


def test_figures_whose_rounds_meet_are_not_told_apart() -> None:
    assert Figure((8.0, 9.0)).overlaps(Figure((8.9, 9.5)))
    assert not Figure((8.0, 8.8)).overlaps(Figure((8.9, 9.5)))


def test_a_ratio_is_of_the_same_round() -> None:
    assert ratio([4.0, 9.0], [5.0, 10.0]).rounds == (0.8, 0.9)


def test_a_report_replaces_the_one_before_it_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "results" / "page.md"
    write_report(path, ["first"])
    write_report(path, ["second", "line"])
    assert path.read_text() == "second\nline\n"
    assert [each.name for each in path.parent.iterdir()] == ["page.md"]


def test_a_report_that_cannot_be_written_leaves_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    write_report(path, ["first"])
    with pytest.raises(UnicodeEncodeError):
        write_report(path, ["half", "\ud800"])
    assert path.read_text() == "first\n"
    assert [each.name for each in tmp_path.iterdir()] == ["page.md"]


def test_a_table_is_markdown() -> None:
    assert markdown_table(["a", "b"], [["x", "1"]]) == ["| a | b |", "| --- | ---: |", "| x | 1 |"]
