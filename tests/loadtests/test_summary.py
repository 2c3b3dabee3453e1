"""The figures in the README are those of loadtests/results/."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from loadtests import summary


def test_the_readme_has_the_figures_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["summary", "--check"])
    with pytest.raises(SystemExit) as ended:
        summary.main()
    assert ended.value.code == 0


def test_a_stale_table_is_told_and_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(summary.README.read_text().replace("Served ÷", "Served, by hand, ÷"))
    monkeypatch.setattr(summary, "README", readme)
    monkeypatch.setattr(sys, "argv", ["summary", "--check"])
    with pytest.raises(SystemExit, match="the figures are stale"):
        summary.main()
    monkeypatch.setattr(sys, "argv", ["summary"])
    summary.main()
    assert readme.read_text() == summary.README.read_text()
    assert "by hand" not in readme.read_text()


def test_the_table_links_to_results_that_are_there(tmp_path: Path) -> None:
    shutil.copytree(summary.RESULTS, tmp_path / "loadtests" / "results")
    for line in summary.table(tmp_path / "loadtests" / "results")[2:]:
        link = line.rpartition("](")[2].partition(")")[0]
        assert (tmp_path / link).is_file(), line
