"""`deepfake evaluate` on folders that cannot be used, on files that cannot be read, and on weights to be warned of."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from deepfake_cli import options as module
from deepfake_client import DecisionPolicy, DeepfakeClient, FakeTransport
from deepfake_evaluation.measures import Sample
from deepfake_evaluation.report import unreadable
from PIL import Image

from tests.support.checkpoints import LABELS
from tests.support.commands import contents, evaluate
from tests.support.pictures import encoded, photo_like

PROVENANCE = {
    "weights": "checkpoint",
    "model_id": "somebody/model",
    "revision": None,
    "precision": "bf16",
    "model_pt_sha256": "ab" * 32,
    "labels": LABELS,
}
STAND_IN = "STAND-IN WEIGHTS: random, verdicts mean nothing"
UNKNOWN = "provenance unknown: the server does not say which weights it serves"

Evaluate = Callable[..., Result]


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Six dark images called deepfakes and six bright ones called real."""
    for index in range(12):
        below = tmp_path / "faces" / LABELS[index % 2]
        below.mkdir(parents=True, exist_ok=True)
        level = 40 + 5 * index if index % 2 == 0 else 190 + 5 * index
        Image.new("RGB", (20, 30), (level, level, level)).save(below / f"{index:02}.png")
    return tmp_path / "faces"


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Evaluate:
    """Runs the command against a fake server that takes dark images for deepfakes; results go to `results`."""

    def run(folder: Path, *arguments: Any, **options: Any) -> Result:
        def darkness(pixels: Any) -> list[float]:
            return [1 - pixels.mean() / 255, pixels.mean() / 255]

        transport = FakeTransport(**{"probabilities": darkness, "provenance": PROVENANCE, **options})
        monkeypatch.setattr(module, "DeepfakeClient", lambda *_, **__: DeepfakeClient(transport=transport))
        output = [] if "--output" in arguments else ["--output", tmp_path / "results"]
        return evaluate(folder, *output, *arguments)

    return run


def refused(run: Result) -> str:
    """The one line of a command that refused its input."""
    assert (run.exit_code, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1
    return run.stderr


def test_a_folder_that_does_not_exist(evaluated: Evaluate, tmp_path: Path) -> None:
    assert "no such folder" in refused(evaluated(tmp_path / "nowhere"))


def test_a_file_in_place_of_a_folder(evaluated: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file, not a folder" in refused(evaluated(tmp_path / "file"))


def test_an_empty_folder(evaluated: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no folders; the images belong into `Deepfake` and `Real one`" in refused(evaluated(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["Real", "real one", "Real one "])
def test_folders_with_other_names(evaluated: Evaluate, faces: Path, name: str) -> None:
    (faces / "Real one").rename(faces / name)
    sentence = refused(evaluated(faces))
    assert f"no label of the model is called `{name}`" in sentence
    assert "exactly `Deepfake` and `Real one`" in sentence


def test_one_class_only(evaluated: Evaluate, faces: Path) -> None:
    (faces / "Real one").rename(faces.parent / "away")
    assert "has no folder `Real one`; one class alone cannot be measured" in refused(evaluated(faces))


def test_a_class_without_images(evaluated: Evaluate, faces: Path) -> None:
    for path in (faces / "Real one").iterdir():
        path.unlink()
    assert "Real one: no files in it" in refused(evaluated(faces))


def test_a_class_without_an_image_that_can_be_read(evaluated: Evaluate, faces: Path) -> None:
    for path in (faces / "Real one").iterdir():
        path.write_text("no picture")
    assert "none of the images in `Real one` can be read" in refused(evaluated(faces))


def test_results_that_would_be_taken_for_images(evaluated: Evaluate, faces: Path) -> None:
    assert "lies in the folder of images" in refused(evaluated(faces, "--output", faces / "results"))
    assert not (faces / "results").exists()


def test_results_that_cannot_be_written(evaluated: Evaluate, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(evaluated(faces, "--output", tmp_path / "file" / "results"))
    assert "cannot be written" in refused(evaluated(faces, "--output", "/proc/results"))


def test_a_model_with_three_classes(evaluated: Evaluate, faces: Path) -> None:
    assert "has 3 classes" in refused(evaluated(faces, labels=["a", "b", "c"], probabilities=[0.2, 0.3, 0.5]))


def test_a_server_that_is_away(faces: Path, tmp_path: Path) -> None:
    run = evaluate(faces, "--url", "grpc://127.0.0.1:9", "--output", tmp_path / "results")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.endswith("no server answers there, or it is not ready; start one with `deepfake serve`\n")
    assert not (tmp_path / "results").exists()


def test_files_beside_the_label_folders_are_named_and_left_out(
    evaluated: Evaluate, faces: Path, tmp_path: Path
) -> None:
    (faces / "README.md").write_text("about these faces")
    (faces / "Deepfake" / "more").symlink_to(faces / "Real one")
    run = evaluated(faces)
    assert run.exit_code == 0
    assert run.stderr == (
        f"{faces}: left out, for they lie in no label's folder or are links to folders: README.md, Deepfake/more\n"
    )
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert report["unreadable"]["left_out"] == ["README.md", "Deepfake/more"]
    assert report["images"]["measured"] == 12
    # They are perfectly separated, and even so twelve of them do not make it certain.
    assert "Accuracy 1.0000 (95 % CI 0.7575–1.0000), 12 of 12" in run.stdout
    assert "AUC 1.0000 (95 % CI 0.6" in run.stdout


def test_an_image_that_cannot_be_damaged_is_named_and_counted(evaluated: Evaluate, faces: Path, tmp_path: Path) -> None:
    Image.new("RGB", (65_520, 4)).save(faces / "Deepfake" / "wide.png")  # wider than a JPEG can be
    run = evaluated(faces, "--robustness")
    assert run.exit_code == 1
    assert "Not measured under JPEG 95: Deepfake/wide.png: " in run.stdout
    rows = json.loads((tmp_path / "results" / "report.json").read_text())["robustness"]
    by_damage = {each["damage"]: each for each in rows}
    assert (by_damage["none"]["images"], by_damage["none"]["failed"]) == (13, [])
    assert by_damage["JPEG 95"]["images"] == 12
    assert [each["file"] for each in by_damage["JPEG 95"]["failed"]] == ["Deepfake/wide.png"]
    assert (by_damage["crop"]["images"], by_damage["crop"]["failed"]) == (13, [])


def test_a_policy_that_is_refused_costs_no_answer(evaluated: Evaluate, faces: Path, tmp_path: Path) -> None:
    assert evaluated(faces).exit_code == 0
    answers = tmp_path / "results" / "answers.jsonl"
    before = answers.read_text()
    other = {"provenance": {**PROVENANCE, "model_pt_sha256": "ee" * 32}}
    DecisionPolicy(1.0, 0.9, 0.1, model_pt_sha256="cd" * 32).save(tmp_path / "policy.json")
    run = evaluated(faces, "--policy", tmp_path / "policy.json", **other)
    assert run.exit_code != 0
    assert answers.read_text() == before


def test_a_policy_that_is_none_is_wrong_usage(evaluated: Evaluate, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text("{")
    assert "not JSON" in refused(evaluated(faces, "--policy", tmp_path / "policy.json"))


def test_unreadable_files_are_listed_and_counted_and_in_no_figure(
    evaluated: Evaluate, faces: Path, tmp_path: Path
) -> None:
    (faces / "Deepfake" / "text.jpg").write_text("no picture")
    (faces / "Real one" / "cut\x1b[31m.jpg").write_bytes(encoded(photo_like(300, 300, 1), "JPEG")[:3000])
    (faces / "Real one" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    run = evaluated(faces)
    assert run.exit_code == 1
    assert "Unreadable, and in no figure: 3 of 15 files" in run.stdout
    assert "Deepfake/text.jpg: not an image" in run.stdout
    assert "truncated JPEG" in run.stdout
    assert "\x1b" not in run.stdout + run.stderr
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert report["images"]["measured"] == 12
    assert report["unreadable"]["count"] == 3
    assert {each["file"] for each in report["unreadable"]["files"]} == {
        "Deepfake/text.jpg",
        "Real one/cut\x1b[31m.jpg",
        os.fsdecode(b"Real one/caf\xe9.jpg"),
    }
    with (tmp_path / "results" / "predictions.csv").open(newline="", errors="surrogateescape") as stream:
        assert sum(bool(row["error"]) for row in csv.DictReader(stream)) == 3


def test_many_unreadable_files_do_not_bury_the_report() -> None:
    nothing = np.empty(0)
    sample = Sample(("a", "b"), nothing, nothing, nothing, [(f"a/{index}.txt", "no image") for index in range(50)])
    text = unreadable(sample, []).text
    assert text.count("\n") == 21
    assert text.endswith("… and 30 more, see predictions.csv")


@pytest.mark.parametrize(("provenance", "note"), [({**PROVENANCE, "weights": "stand-in"}, STAND_IN), (None, UNKNOWN)])
def test_stand_in_and_unknown_weights_are_named_in_everything(
    evaluated: Evaluate, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provenance: Any, note: str
) -> None:
    from deepfake_evaluation import robustness

    monkeypatch.setattr(robustness, "DAMAGES", robustness.DAMAGES[:2])
    run = evaluated(faces, "--robustness", provenance=provenance)
    assert run.exit_code == 0
    assert run.stdout.startswith(f"{note}\n")
    results = contents(tmp_path / "results")
    assert json.loads(results["report.json"])["weights_note"] == note
    for name in ("predictions.csv", "robustness.csv"):
        rows = list(csv.DictReader(results[name].decode().splitlines()))
        assert {row["note"] for row in rows} == {note}
    plots = [name for name in results if name.endswith(".png")]
    assert len(plots) == 6
    for name in plots:
        with Image.open(tmp_path / "results" / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert (pixels == (0xB0, 0x00, 0x20)).all(-1).sum() > 5_000, name  # the red band that carries the note


def test_two_images_and_equal_scores_are_enough_for_every_plot(
    evaluated: Evaluate, faces: Path, tmp_path: Path
) -> None:
    for label in LABELS:
        for path in sorted((faces / label).iterdir())[1:]:
            path.unlink()
    assert evaluated(faces, probabilities=[0.5, 0.5]).exit_code == 0
    assert len(list((tmp_path / "results").glob("*.png"))) == 5


@pytest.mark.slow
def test_results_of_an_earlier_run_stay_whole_when_new_ones_cannot_be_written(
    evaluated: Evaluate, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(faces)
    before = contents(tmp_path / "results")
    (faces / "Real one" / "01.png").unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("deepfake_evaluation.plots.draw", full)
        run = evaluated(faces)
    assert (run.exit_code, run.stdout) == (1, "")
    assert "cannot be written (No space left on device); the results there are unchanged" in run.stderr
    assert contents(tmp_path / "results") == before


HELP = """
import sys
from deepfake_cli.app import deepfake
for arguments in (["--help"], ["evaluate", "--help"]):
    try:
        deepfake.main(arguments, standalone_mode=False)
    except SystemExit:
        pass
print([name for name in ("sklearn", "matplotlib", "scipy") if name in sys.modules])
sys.modules["sklearn.metrics"] = sys.modules["sklearn"] = None
deepfake.main(["evaluate", "."], standalone_mode=False)
"""


def test_the_help_does_not_need_the_extra_and_the_command_says_what_it_needs() -> None:
    run = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=120)
    assert "--robustness" in run.stdout
    assert run.stdout.endswith("[]\n")
    assert run.returncode == 1
    assert run.stderr.startswith("deepfake: evaluate needs sklearn")
    assert run.stderr.endswith("pip install 'deepfake-vs-real[evaluate]'\n")
    assert run.stderr.count("\n") == 1
