"""Which images a run asks for, which answers it keeps, and how much memory it takes; against a fake server."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from deepfake_client import DeepfakeClient, DeepfakeError, FakeTransport, InternalServerError
from deepfake_client.preprocessing import Decoding
from deepfake_evaluation import InputError, ModelChangedError, OutputError, UnansweredError
from deepfake_evaluation.journal import open_journal
from deepfake_evaluation.measures import collect, measure
from deepfake_evaluation.report import write_predictions
from deepfake_evaluation.run import EvaluationRun, Prediction, open_run
from PIL import Image

from tests.support.checkpoints import LABELS
from tests.support.pictures import encoded, photo_like

PROVENANCE = {
    "weights": "checkpoint",
    "model_id": "somebody/model",
    "revision": "main",
    "precision": "fp32",
    "model_pt_sha256": "ab" * 32,
    "labels": LABELS,
}
MANY = 10_000


def server(**options: Any) -> FakeTransport:
    """A server whose score is the brightness of the image."""

    def brightness(pixels: Any) -> list[float]:
        return [pixels.mean() / 255, 1 - pixels.mean() / 255]

    return FakeTransport(**{"probabilities": brightness, "provenance": PROVENANCE, **options})


@contextmanager
def running(
    transport: FakeTransport, folder: Path, answers: Path, decoding: Decoding = "exact"
) -> Iterator[EvaluationRun]:
    with (
        DeepfakeClient(transport=transport, max_retries=0, decoding=decoding) as client,
        open_run(client, folder, answers, decoding=decoding) as run,
    ):
        yield run


def classify(transport: FakeTransport, folder: Path, answers: Path, decoding: Decoding = "exact") -> list[Prediction]:
    with running(transport, folder, answers, decoding) as run:
        return list(run.classify())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of each label, and of one a text file."""
    for index in range(20):
        below = tmp_path / "images" / LABELS[index % 2]
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{index:02}.png").write_bytes(encoded(photo_like(40, 30, index), "PNG"))
    (tmp_path / "images" / LABELS[0] / "note.txt").write_text("no picture")
    return tmp_path / "images"


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return tmp_path / "results" / "answers.jsonl"


def test_every_file_has_its_place_also_what_is_no_image(folder: Path, answers: Path) -> None:
    predictions = classify(server(), folder, answers)
    assert [each.file for each in predictions] == sorted(each.file for each in predictions)
    assert len(predictions) == 21
    (unreadable,) = [each for each in predictions if each.scores is None]
    assert (unreadable.file, unreadable.label) == ("Deepfake/note.txt", "Deepfake")
    assert "not an image" in str(unreadable.error)


def test_nothing_is_asked_twice(folder: Path, answers: Path) -> None:
    first, second = server(), server()
    before = classify(first, folder, answers)
    assert len(first.requests) == 20
    assert classify(second, folder, answers) == before
    assert second.requests == []


def test_answers_to_exact_pixels_are_not_taken_for_those_to_fast_ones(folder: Path, answers: Path) -> None:
    (folder / LABELS[0] / "large.jpg").write_bytes(encoded(photo_like(1400, 1000, 7), "JPEG"))
    exact, fast = (classify(server(), folder, answers, decoding) for decoding in ("exact", "fast"))
    (other,) = [one.file for one, another in zip(exact, fast, strict=True) if one != another]
    assert other == "Deepfake/large.jpg"
    again = server()
    assert classify(again, folder, answers, "fast") == fast
    assert classify(again, folder, answers, "exact") == exact
    assert again.requests == []


def test_an_image_edited_to_the_same_size_and_time_is_asked_for_again(folder: Path, answers: Path) -> None:
    before = classify(server(), folder, answers)
    edited, status = folder / LABELS[0] / "04.png", (folder / LABELS[0] / "04.png").stat()
    Image.fromarray(255 - np.asarray(Image.open(edited))).save(folder.parent / "inverse.png")
    content = (folder.parent / "inverse.png").read_bytes()[: status.st_size]
    edited.write_bytes(content + bytes(status.st_size - len(content)))
    os.utime(edited, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (edited.stat().st_size, edited.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    again = server()
    after = classify(again, folder, answers)
    assert {each.file for each, old in zip(after, before, strict=True) if each != old} == {"Deepfake/04.png"}
    assert len(again.requests) <= 1


def test_images_that_are_renamed_added_and_removed_change_nothing_for_the_others(folder: Path, answers: Path) -> None:
    classify(server(), folder, answers)
    (folder / LABELS[1] / "01.png").rename(folder / LABELS[1] / "renamed.png")
    (folder / LABELS[1] / "03.png").unlink()
    (folder / LABELS[0] / "0-first.png").write_bytes(encoded(photo_like(30, 30, 99), "PNG"))
    again = server()
    predictions = classify(again, folder, answers)
    assert len(predictions) == 21
    assert predictions[0].file == "Deepfake/0-first.png"
    assert "Real one/renamed.png" in [each.file for each in predictions]
    assert len(again.requests) == 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"provenance": {**PROVENANCE, "model_pt_sha256": "cd" * 32}}, "its answers are of deepfake_vs_real version 1"),
        ({"version": "2"}, "the server has deepfake_vs_real version 2"),
    ],
)
def test_other_weights_or_another_version_start_afresh_and_it_is_said(
    folder: Path, answers: Path, changed: dict[str, Any], sentence: str
) -> None:
    classify(server(), folder, answers)
    other = server(**changed)
    with running(other, folder, answers) as run:
        assert sentence in str(run.notes)
        assert run.notes[0].endswith("starting afresh")
        assert len(run.classify()) == 21
    assert len(other.requests) == 20


def test_weights_that_cannot_be_told_apart_start_afresh(folder: Path, answers: Path) -> None:
    classify(server(provenance=None), folder, answers)
    again = server(provenance=None)
    with running(again, folder, answers) as run:
        assert "does not say which weights it serves" in str(run.notes)
        run.classify()
    assert len(again.requests) == 20


@pytest.mark.parametrize("rest", [b'{"file": "Real one/19', b"\0\0\0\0", b'{"half": 1}\n'])
def test_a_torn_last_line_costs_its_image_and_no_other(folder: Path, answers: Path, rest: bytes) -> None:
    before = classify(server(), folder, answers)
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:-1]) + rest)
    again = server()
    assert classify(again, folder, answers) == before
    assert len(again.requests) == 1


def test_an_image_that_the_server_failed_on_is_asked_for_again_and_the_others_are_not(
    folder: Path, answers: Path
) -> None:
    errors: list[DeepfakeError | None] = [None] * 7 + [InternalServerError("out of memory")]
    with pytest.raises(UnansweredError, match="run the same command again to go on"):
        classify(server(errors=errors), folder, answers)
    again = server()
    assert len(classify(again, folder, answers)) == 21
    assert len(again.requests) == 1


def test_a_server_that_fails_always_is_not_asked_to_the_end(folder: Path, answers: Path) -> None:
    for index in range(200):
        (folder / LABELS[1] / f"more-{index}.png").write_bytes(encoded(photo_like(8, 8, index), "PNG"))
    away = server(errors=[InternalServerError("out of memory")] * 300)
    with pytest.raises(UnansweredError):
        classify(away, folder, answers)
    assert len(away.requests) < 100


@pytest.mark.parametrize("failing", [False, True])
def test_weights_exchanged_in_the_middle_are_an_error_and_spoil_nothing(
    folder: Path, answers: Path, failing: bool
) -> None:
    transport = server(errors=[None] * 15 + [InternalServerError("out of memory")] if failing else [])

    def exchange_at_half(_: Any) -> list[float]:
        if len(transport.requests) == 10:
            transport.provenance = {**PROVENANCE, "model_pt_sha256": "cd" * 32}
        return [0.5, 0.5]

    transport.probabilities = exchange_at_half
    with pytest.raises(ModelChangedError, match="weights were exchanged"):
        classify(transport, folder, answers)
    again = server()
    classify(again, folder, answers)
    assert len(again.requests) == 20


def test_another_version_in_the_middle_is_an_error(folder: Path, answers: Path) -> None:
    transport = server()

    def roll_out_at_half(_: Any) -> list[float]:
        if len(transport.requests) == 10:
            transport.version = "2"
        return [0.5, 0.5]

    transport.probabilities = roll_out_at_half
    with pytest.raises(ModelChangedError, match="version 2 in place of 1"):
        classify(transport, folder, answers)


def test_two_evaluations_do_not_write_to_the_same_folder(folder: Path, answers: Path) -> None:
    with running(server(), folder, answers), pytest.raises(OutputError, match="another evaluation"):
        classify(server(), folder, answers)


def test_a_file_of_somebody_else_is_not_overwritten(folder: Path, answers: Path) -> None:
    answers.parent.mkdir()
    answers.write_text('{"precious": true}\n')
    with pytest.raises(InputError, match="not written by"):
        classify(server(), folder, answers)
    assert json.loads(answers.read_text()) == {"precious": True}


def test_an_answer_is_on_the_disk_before_the_next_is_there(tmp_path: Path) -> None:
    identity = {"name": "m", "version": "1", "labels": LABELS, "model_pt_sha256": "ab"}
    with open_journal(tmp_path / "a.jsonl", identity) as journal:
        for index in range(3):
            journal.append(f"Deepfake/{index}.png", "", f"{index:064}", (0.5, 0.5))
            assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == index + 2


def test_predictions_come_back_as_they_were_written_whatever_the_files_are_called(tmp_path: Path) -> None:
    names = ["a,b.png", 'quo"te.png', "line\nbreak\r.png", os.fsdecode(b"caf\xe9.png"), "=1+1.png", " @x.png"]
    predictions = [Prediction(f"Deepfake/{name}", (0.1234567890123, 0.25)) for name in names]
    predictions.append(Prediction("Real one/empty.jpg", None, "empty file"))
    for note in (None, "STAND-IN"):
        write_predictions(tmp_path / "predictions.csv", LABELS, predictions, note)
        with (tmp_path / "predictions.csv").open(newline="", errors="surrogateescape") as stream:
            rows = list(csv.DictReader(stream))
        assert list(rows[0]) == ["file", "label", "predicted", *LABELS, "error", *(["note"] if note else [])]
        assert [row["file"] for row in rows] == [each.file for each in predictions]
        assert [float(row["Deepfake"]) for row in rows[:-1]] == [0.1234567890123] * len(names)
        assert list(rows[-1].values())[:6] == ["Real one/empty.jpg", "Real one", "", "", "", "empty file"]
        cells = [cell for row in rows for cell in row.values()]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]  # no formulas


@pytest.mark.slow
def test_many_images_take_some_hundred_bytes_each(tmp_path: Path, answers: Path) -> None:
    contents = [encoded(photo_like(24, 24, seed), "PNG") for seed in range(10)]
    for index in range(MANY):
        below = tmp_path / "images" / LABELS[index % 2] / f"{index // 2000:02}"
        below.mkdir(parents=True, exist_ok=True)
        # What follows the end of a PNG makes each another file, and no other image.
        (below / f"{index:05}.png").write_bytes(contents[index % 10] + b"%d" % index)
    transport = server()
    transport.requests = _Forgetful()
    process, readings, done = psutil.Process(), [], 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done in (MANY // 10, MANY // 2, MANY):
            readings.append(process.memory_info().rss >> 20)

    with DeepfakeClient(transport=transport) as client, open_run(client, tmp_path / "images", answers) as run:
        predictions = run.classify(advance)
        assert len(predictions) == MANY
        assert measure(collect(predictions, run.model.labels)).accuracy.value < 1
    readings.append(process.memory_info().rss >> 20)
    assert max(readings) - readings[0] < 15, readings
    again = server()
    with DeepfakeClient(transport=again) as client, open_run(client, tmp_path / "images", answers) as run:
        assert run.classify() == predictions
    assert again.requests == []


class _Forgetful(list):  # type: ignore[type-arg]
    def append(self, request: object) -> None:
        """Keeps nothing, since the requests hold their images."""
