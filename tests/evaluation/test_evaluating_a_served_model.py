"""`deepfake evaluate` over the whole path says what scikit-learn says of transformers' own outputs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_evaluation.robustness import DAMAGES
from PIL import Image
from sklearn.metrics import average_precision_score, classification_report, confusion_matrix, roc_auc_score
from transformers import AutoImageProcessor, SiglipForImageClassification
from transformers.image_utils import load_image

from tests.support.checkpoints import LABELS
from tests.support.commands import evaluate

PLOTS = {"confusion_matrix.png", "roc.png", "precision_recall.png", "reliability.png", "scores.png"}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results") / "evaluation"


@pytest.fixture(scope="module")
def run(trained_triton: EmbeddedTriton, labelled_faces: Path, output: Path) -> Result:
    """One evaluation, which the tests look at."""
    return evaluate(labelled_faces, "--url", trained_triton.grpc_url, "--output", output)


@pytest.fixture(scope="module")
def report(run: Result, output: Path) -> dict:
    assert run.stderr == ""
    return json.loads((output / "report.json").read_text())


class Reference:
    """The model card's own code on the same images."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self._model = SiglipForImageClassification.from_pretrained(checkpoint).eval()
        self._processor = AutoImageProcessor.from_pretrained(checkpoint)
        self.files = [path for label in LABELS for path in sorted((folder / label).rglob("*.*"))]
        self.images = [load_image(str(path)) for path in self.files]
        self.truth = np.array([LABELS.index(path.relative_to(folder).parts[0]) for path in self.files])

    def probabilities(self, damage: Callable[[Image.Image], Image.Image] = lambda image: image) -> np.ndarray:
        """(images, 2)."""
        inputs = self._processor(images=[damage(image) for image in self.images], return_tensors="pt")
        with torch.inference_mode():
            return torch.softmax(self._model(**inputs).logits, dim=1).numpy()


@pytest.fixture(scope="module")
def reference(trained: Path, labelled_faces: Path) -> Reference:
    return Reference(trained, labelled_faces)


@pytest.fixture(scope="module")
def expected(reference: Reference) -> np.ndarray:
    return reference.probabilities()


def test_a_model_that_has_learned_to_tell_them_apart_reaches_95_percent(run: Result, report: dict) -> None:
    assert run.exit_code == 0
    assert report["classification"]["accuracy"]["value"] > 0.95
    assert report["images"] == {"measured": 80, "by_label": {"Deepfake": 40, "Real one": 40}}


def test_the_printed_report_is_scikit_learns_on_the_outputs_of_transformers(
    run: Result, reference: Reference, expected: np.ndarray
) -> None:
    table = classification_report(reference.truth, expected.argmax(1), target_names=LABELS, digits=4)
    assert table in run.stdout
    assert "precision    recall  f1-score   support" in table


def test_confusion_matrix_auc_and_average_precision_are_scikit_learns(
    report: dict, reference: Reference, expected: np.ndarray
) -> None:
    figures = report["classification"]
    predicted, positive = expected.argmax(1), reference.truth == 0
    assert figures["positive_label"] == "Deepfake"
    assert figures["confusion_matrix"]["labels"] == LABELS
    assert figures["confusion_matrix"]["true_by_predicted"] == confusion_matrix(reference.truth, predicted).tolist()
    assert figures["accuracy"]["value"] == (predicted == reference.truth).mean()
    assert figures["auc"]["value"] == pytest.approx(roc_auc_score(positive, expected[:, 0]), abs=1e-9)
    assert figures["average_precision"] == pytest.approx(average_precision_score(positive, expected[:, 0]), abs=1e-9)
    for name in ("accuracy", "auc"):
        assert 0 < figures[name]["low"] < figures[name]["value"] <= figures[name]["high"] <= 1


def test_the_calibration_error_is_that_of_the_outputs_of_transformers(
    report: dict, reference: Reference, expected: np.ndarray
) -> None:
    scores, positive = expected[:, 0].astype(float), reference.truth == 0
    error = 0.0
    for low in np.arange(10) / 10:
        chosen = (scores >= low) & ((scores < low + 0.1) | ((low == 0.9) & (scores == 1)))
        if chosen.any():
            error += chosen.mean() * abs(scores[chosen].mean() - positive[chosen].mean())
    assert report["classification"]["reliability"]["expected_calibration_error"] == pytest.approx(error, abs=1e-6)


@pytest.mark.slow
def test_the_robustness_table_is_scikit_learns_on_damaged_images_in_transformers(
    trained_triton: EmbeddedTriton, trained: Path, few_faces: Path, tmp_path: Path
) -> None:
    run = evaluate(few_faces, "--url", trained_triton.http_url, "--output", tmp_path, "--robustness")
    assert (run.exit_code, run.stderr) == (0, "")
    reference = Reference(trained, few_faces)
    rows = {row["damage"]: row for row in json.loads((tmp_path / "report.json").read_text())["robustness"]}
    assert list(rows) == ["none", *(damage.name for damage in DAMAGES)]
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()[1:]]
    for damage in DAMAGES:
        expected, row = reference.probabilities(damage.apply), rows[damage.name]
        served = [each["scores"] for each in answers if each["damage"].startswith(f"{damage.name}:")]
        np.testing.assert_allclose(served, expected, atol=1e-5, rtol=0, err_msg=damage.name)
        assert row["images"] == len(reference.files) == 24
        assert row["accuracy"]["value"] == (expected.argmax(1) == reference.truth).mean(), damage.name
        assert row["auc"]["value"] == pytest.approx(roc_auc_score(reference.truth == 0, expected[:, 0]), abs=1e-9)
        for index, label in enumerate(LABELS):
            recall = (expected.argmax(1) == index)[reference.truth == index].mean()
            assert row["recall"][label]["value"] == recall, damage.name
    require_table(run, tmp_path, list(rows.values()))


def require_table(run: Result, output: Path, rows: list[dict]) -> None:
    """The same is printed, written and drawn."""
    with (output / "robustness.csv").open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert [row["damage"] for row in written] == [row["damage"] for row in rows]
    for row, figures in zip(written, rows, strict=True):
        accuracy, auc = figures["accuracy"], figures["auc"]
        assert float(row["accuracy"]) == accuracy["value"]
        assert float(row["auc_high"]) == auc["high"]
        line = next(line for line in run.stdout.splitlines() if line.startswith(f"{figures['damage']}  "))
        assert f"{accuracy['value']:.4f} ({accuracy['low']:.4f}–{accuracy['high']:.4f})" in line
        assert f"{auc['value']:.4f} ({auc['low']:.4f}–{auc['high']:.4f})" in line
    with Image.open(output / "robustness.png") as image:
        assert min(image.size) > 600


def test_predictions_have_a_row_for_each_file_with_the_scores_of_transformers(
    report: dict, output: Path, reference: Reference, expected: np.ndarray, labelled_faces: Path
) -> None:
    assert report["weights_note"] is None
    with (output / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["file", "label", "predicted", *LABELS, "error"]
    by_file = {row["file"]: row for row in rows}
    assert len(by_file) == len(rows) == 80
    for path, scores in zip(reference.files, expected, strict=True):
        row = by_file[path.relative_to(labelled_faces).as_posix()]
        assert row["label"] == row["file"].split("/")[0]
        assert row["predicted"] == LABELS[int(scores.argmax())]
        np.testing.assert_allclose([float(row[label]) for label in LABELS], scores, atol=1e-5, rtol=0)


def test_each_plot_is_a_picture_and_says_nothing_of_stand_in_weights(run: Result, output: Path) -> None:
    assert run.exit_code == 0
    assert {path.name for path in output.glob("*.png")} == PLOTS
    for name in PLOTS:
        with Image.open(output / name) as image:
            assert min(image.size) > 600
            assert not warned(image)


def test_the_report_names_weights_and_libraries(report: dict, trained: Path) -> None:
    assert report["provenance"]["weights"] == "checkpoint"
    assert report["provenance"]["model_id"] == str(trained)
    assert len(report["provenance"]["model_pt_sha256"]) == 64
    assert report["model"] == {"name": "deepfake_vs_real", "version": "1", "labels": LABELS}
    assert {"scikit-learn", "pillow", "deepfake-vs-real"} <= set(report["libraries"])


def warned(image: Image.Image) -> bool:
    """Whether there is the red band of a warning."""
    pixels = np.asarray(image.convert("RGB"))
    return int((pixels == (0xB0, 0x00, 0x20)).all(-1).sum()) > 5_000
