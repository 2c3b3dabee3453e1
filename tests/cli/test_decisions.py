"""Decisions in what `deepfake classify` writes; without a policy nothing of them is to be seen."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from deepfake_cli.classify import FORMATS
from deepfake_client import Failure, ImageFormatError, Verdict

LABELS = ("Deepfake", "Real one")


def written(format_name: str, *, decisions: bool) -> str:
    results: list[Verdict | Failure] = []
    for source, score, decision in (("a.jpg", 0.97, "Deepfake"), ("b.jpg", 0.6, "unsure"), ("c.jpg", 0.1, "Real one")):
        scores = MappingProxyType({"Deepfake": score, "Real one": 1 - score})
        label = max(scores, key=scores.__getitem__)
        verdict = Verdict(label, scores, source, "deepfake_vs_real", "1", "7", decision if decisions else None)
        results.append(verdict)
    results.append(Failure("d.jpg", ImageFormatError("not an image", source="d.jpg")))
    return "".join(FORMATS[format_name](results, LABELS, decisions))


def test_the_table_has_a_column_for_them() -> None:
    assert written("table", decisions=True).splitlines() == [
        "label     score   decision  source",
        "Deepfake  0.9700  Deepfake  a.jpg",
        "Deepfake  0.6000  unsure    b.jpg",
        "Real one  0.9000  Real one  c.jpg",
        "error     -       -         d.jpg: not an image",
    ]
    assert "decision" not in written("table", decisions=False)


def test_the_csv_has_a_column_for_them() -> None:
    head, first, second, *_ = written("csv", decisions=True).splitlines()
    assert head == "source,label,Deepfake,Real one,model,model_version,decision,error"
    assert first.endswith(",deepfake_vs_real,1,Deepfake,")
    assert second.endswith(",unsure,")
    head, *_ = written("csv", decisions=False).splitlines()
    assert head == "source,label,Deepfake,Real one,model,model_version,error"


@pytest.mark.parametrize("format_name", ["json", "jsonl"])
def test_the_objects_have_a_key_for_them(format_name: str) -> None:
    def objects(text: str) -> list[dict]:
        return json.loads(text) if format_name == "json" else [json.loads(line) for line in text.splitlines()]

    with_decisions = objects(written(format_name, decisions=True))
    assert [each.get("decision") for each in with_decisions] == ["Deepfake", "unsure", "Real one", None]
    assert not any("decision" in each for each in objects(written(format_name, decisions=False)))
