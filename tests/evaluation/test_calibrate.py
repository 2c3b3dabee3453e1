"""`deepfake calibrate`: a policy for the served weights, fitted to a folder of images through the server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from deepfake_client import DecisionPolicy, DeepfakeClient, PolicyMismatchError, Verdict
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_evaluation.measures import allowed_errors
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from transformers import AutoImageProcessor, SiglipForImageClassification
from transformers.image_utils import load_image

from tests.support.checkpoints import LABELS
from tests.support.commands import deepfake
from tests.support.exports import exported_files
from tests.support.servers import running

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = 0.2


@pytest.fixture(scope="module")
def doubtful_faces(labelled_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of which some lie in the wrong folder, as in the world, so that no temperature is right for all."""
    folder = Path(shutil.copytree(labelled_faces, tmp_path_factory.mktemp("doubtful") / "faces"))
    files = {label: sorted(path for path in (folder / label).iterdir() if path.is_file())[:5] for label in LABELS}
    for label, other in (LABELS, LABELS[::-1]):
        for file in files[label]:
            file.rename(folder / other / f"wrong-{file.name}")
    return folder


@pytest.fixture(scope="module")
def expected(trained: Path, doubtful_faces: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Files, transformers' own logits of shape (N, 2), and whether each is said to be a deepfake."""
    files = sorted(path for path in doubtful_faces.rglob("*") if path.is_file())
    model = SiglipForImageClassification.from_pretrained(trained).eval()
    processor = AutoImageProcessor.from_pretrained(trained)
    with torch.inference_mode():
        logits = [
            model(**processor(images=load_image(str(file)), return_tensors="pt")).logits[0].numpy() for file in files
        ]
    truth = np.array([file.relative_to(doubtful_faces).parts[0] == LABELS[0] for file in files])
    return files, np.stack(logits).astype(np.float64), truth


@pytest.fixture(scope="module")
def calibrated(
    trained_triton: EmbeddedTriton, doubtful_faces: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The policy's file, and what was printed."""
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    command = ["calibrate", doubtful_faces, "--url", trained_triton.grpc_url, "--output", path]
    run = subprocess.run(
        [sys.executable, "-m", "deepfake_cli", *command, "--false-positive-rate", str(RATE)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    return path, run.stdout


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits) / temperature, dim=1)[:, 0].numpy()


def calibration_error(probability: np.ndarray, truth: np.ndarray) -> float:
    """Recomputed bin by bin: mean distance of probability and share of deepfakes, weighted by the images."""
    error = 0.0
    for part in range(10):
        inside = (probability >= part / 10) & ((probability < (part + 1) / 10) | (part == 9))
        if inside.any():
            error += inside.mean() * abs(probability[inside].mean() - truth[inside].mean())
    return error


def test_the_temperature_is_the_one_that_fits_transformers_own_outputs(calibrated, expected) -> None:
    _, logits, truth = expected
    best = minimize_scalar(
        lambda temperature: log_loss(truth, probabilities(logits, temperature)), bounds=(0.05, 50), method="bounded",
        options={"xatol": 1e-8},
    )  # fmt: skip
    policy = DecisionPolicy.load(calibrated[0])
    assert policy.temperature == pytest.approx(best.x, rel=1e-3)
    assert abs(policy.temperature - 1) > 0.05  # or nothing was fitted


def test_the_calibration_error_is_that_of_transformers_own_outputs(calibrated, expected) -> None:
    _, logits, truth = expected
    policy = DecisionPolicy.load(calibrated[0])
    assert policy.evidence.ece_before == pytest.approx(calibration_error(probabilities(logits, 1), truth), abs=1e-5)
    after = calibration_error(probabilities(logits, policy.temperature), truth)
    assert policy.evidence.ece_after == pytest.approx(after, abs=1e-4)


def test_the_decisions_are_those_that_follow_from_transformers_own_outputs(calibrated, expected) -> None:
    _, logits, truth = expected
    policy = DecisionPolicy.load(calibrated[0])
    probability = probabilities(logits, policy.temperature)
    # The image on a threshold is a rounding away from the other side of it.
    called_deepfake, called_real = (
        probability >= policy.deepfake_threshold - 1e-5,
        probability <= policy.real_threshold + 1e-5,
    )
    evidence = policy.evidence
    assert evidence.photos_called_deepfake == np.sum(called_deepfake & ~truth) <= allowed_errors(40, RATE)
    assert evidence.deepfakes_called_real == np.sum(called_real & truth) <= allowed_errors(40, RATE)
    assert evidence.unsure == np.sum(~called_deepfake & ~called_real) > 0
    assert max(evidence.photos_called_deepfake_bound, evidence.deepfakes_called_real_bound) <= RATE
    assert (evidence.deepfakes, evidence.real_photos) == (40, 40)


def test_the_policy_names_the_weights_that_it_is_for(calibrated, trained_repository: Path) -> None:
    policy = DecisionPolicy.load(calibrated[0])
    provenance = json.loads(exported_files(trained_repository)[1].read_text())
    assert policy.model_pt_sha256 == provenance["model_pt_sha256"]
    assert (policy.model, policy.model_version, policy.stand_in) == ("deepfake_vs_real", "1", False)


def test_the_report_says_what_is_in_the_policy(calibrated) -> None:
    path, printed = calibrated
    policy, lines = DecisionPolicy.load(path), dict(re.findall(r"^(\S.*?) {2,}(.*)$", calibrated[1], re.MULTILINE))
    assert lines["images"] == "40 Deepfake, 40 Real one"
    assert lines["temperature"] == f"{policy.temperature:.4g}"
    assert lines["calibration error"].startswith(f"{policy.evidence.ece_before:.4f} → {policy.evidence.ece_after:.4f}")
    assert lines["Deepfake"] == f"from {policy.deepfake_threshold:.4f} up"
    assert lines["Real one"] == f"up to {policy.real_threshold:.4f}"
    assert lines["unsure"].startswith(f"{policy.evidence.unsure} of 80 (")
    assert lines["photos called Deepfake"].startswith(f"{policy.evidence.photos_called_deepfake} of 40 (")
    assert f"at most {100 * policy.evidence.photos_called_deepfake_bound:.2f} %" in lines["photos called Deepfake"]
    assert f"Wrote {path}" in printed


def test_classify_gives_the_decisions_of_the_policy(calibrated, trained_triton, doubtful_faces: Path) -> None:
    policy = DecisionPolicy.load(calibrated[0])
    options = ["--url", trained_triton.http_url, "--policy", calibrated[0], "--format", "json"]
    run = deepfake("classify", doubtful_faces, *options)
    assert (run.exit_code, run.stderr) == (0, "")
    with DeepfakeClient(trained_triton.grpc_url, decode="server") as client:
        files = sorted(path for path in doubtful_faces.rglob("*") if path.is_file())
        verdicts = {str(each.source): each for each in client.classify_many(files) if isinstance(each, Verdict)}
    decisions = {source: policy.decide(verdict.scores) for source, verdict in verdicts.items()}
    assert set(decisions.values()) == {"Deepfake", "Real one", "unsure"}
    assert {each["source"]: each["decision"] for each in json.loads(run.stdout)} == decisions


def test_another_rate_asks_the_server_for_nothing_again(calibrated, trained_triton, doubtful_faces: Path) -> None:
    path, _ = calibrated
    old, answers = path.read_text(), path.with_name("policy.json.answers.jsonl")
    answered = answers.read_text()
    command = ["calibrate", doubtful_faces, "--url", trained_triton.grpc_url, "--output", path]
    run = deepfake(*command, "--false-positive-rate", 0.3)
    assert run.exit_code == 0
    assert answers.read_text() == answered
    assert len(answered.splitlines()) == 81  # the model, and an answer for each image
    assert DecisionPolicy.load(path).evidence.error_rate_asked == 0.3
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, answers.name]
    path.write_text(old)


def test_forty_images_cannot_show_one_per_cent(trained_triton: EmbeddedTriton, labelled_faces: Path, tmp_path) -> None:
    (tmp_path / "policy.json").write_text("an older one")
    run = deepfake("calibrate", labelled_faces, "--url", trained_triton.grpc_url, "--output", tmp_path / "policy.json")
    assert (run.exit_code, run.stdout) == (2, "")
    assert "299 are needed" in run.stderr
    assert "--false-positive-rate 0.0722" in run.stderr
    assert run.stderr.count("\n") == 1
    assert (tmp_path / "policy.json").read_text() == "an older one"
    assert (tmp_path / "policy.json.answers.jsonl").read_text() == ""  # no image was asked for


def test_classes_that_are_told_apart_without_an_error(
    trained_triton: EmbeddedTriton, labelled_faces: Path, tmp_path: Path
) -> None:
    """And files that are no images are left out, and named."""
    folder = tmp_path / "faces"
    with DeepfakeClient(trained_triton.grpc_url) as client:
        for verdict in client.classify_many(sorted(filter(Path.is_file, labelled_faces.rglob("*")))):
            if Path(verdict.source).is_relative_to(labelled_faces / verdict.label):
                (folder / verdict.label).mkdir(parents=True, exist_ok=True)
                shutil.copy(verdict.source, folder / verdict.label)
    (folder / LABELS[1] / "text.jpg").write_text("no image")
    command = ["calibrate", folder, "--url", trained_triton.http_url, "--output", tmp_path / "policy.json"]
    run = deepfake(*command, "--false-positive-rate", RATE)
    assert run.exit_code == 1
    assert "every label is right" in run.stdout
    assert re.fullmatch(r"left out: .*/Real one/text\.jpg: not an image.*\n", run.stderr)
    policy = DecisionPolicy.load(tmp_path / "policy.json")
    assert 0.01 < policy.temperature < 100
    assert (policy.evidence.photos_called_deepfake, policy.evidence.deepfakes_called_real) == (0, 0)
    assert policy.real_threshold <= 0.5 <= policy.deepfake_threshold


@pytest.fixture(scope="module")
def stand_in(trained_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server that says of its weights that they are a stand-in."""
    repository = Path(shutil.copytree(trained_repository, tmp_path_factory.mktemp("stand-in") / "model_repository"))
    _, provenance = exported_files(repository)
    document = {**json.loads(provenance.read_text()), "weights": "stand-in", "model_pt_sha256": "0" * 64}
    provenance.write_text(json.dumps(document))
    with running(repository) as server:
        yield server


@pytest.mark.slow
def test_stand_in_weights_are_named_in_the_policy_and_above_the_report(
    stand_in: EmbeddedTriton, doubtful_faces: Path, tmp_path: Path
) -> None:
    command = ["calibrate", doubtful_faces, "--url", stand_in.grpc_url, "--output", tmp_path / "policy.json"]
    run = deepfake(*command, "--false-positive-rate", RATE)
    assert run.exit_code == 0, run.stderr
    assert run.stdout.startswith("STAND-IN WEIGHTS")
    assert DecisionPolicy.load(tmp_path / "policy.json").stand_in


@pytest.mark.slow
def test_a_policy_for_other_weights_ends_every_command_in_a_line(
    calibrated, stand_in: EmbeddedTriton, doubtful_faces: Path, tmp_path: Path
) -> None:
    options = ["--url", stand_in.grpc_url, "--policy", calibrated[0]]
    for command in (["classify", doubtful_faces], ["evaluate", doubtful_faces, "--output", tmp_path / "out"]):
        run = deepfake(*command, *options)
        assert (run.exit_code, run.stdout) == (1, "")
        assert "000000000000…: calibrate again" in run.stderr
        assert run.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "report.json").exists()
    with DeepfakeClient(stand_in.http_url, policy=calibrated[0], decode="server") as client:
        file = next(filter(Path.is_file, doubtful_faces.rglob("*")))
        with pytest.raises(PolicyMismatchError):
            client.classify(file)


def test_an_evaluation_measures_the_decisions(
    calibrated, expected, trained_triton: EmbeddedTriton, doubtful_faces: Path, tmp_path: Path
) -> None:
    command = ["evaluate", doubtful_faces, "--url", trained_triton.grpc_url, "--output", tmp_path / "out"]
    run = deepfake(*command, "--policy", calibrated[0])
    assert run.exit_code == 0, run.stderr
    policy, report = DecisionPolicy.load(calibrated[0]), json.loads((tmp_path / "out" / "report.json").read_text())
    _, logits, truth = expected
    probability = probabilities(logits, policy.temperature)
    decisions = report["decisions"]
    assert decisions["policy"]["temperature"] == policy.temperature
    assert decisions["expected_calibration_error"] == pytest.approx(calibration_error(probability, truth), abs=1e-4)
    assert report["classification"]["reliability"]["expected_calibration_error"] == pytest.approx(
        calibration_error(probabilities(logits, 1), truth), abs=1e-4
    )
    counts = decisions["counts"]
    assert {label: sum(counts[label].values()) for label in LABELS} == {"Deepfake": 40, "Real one": 40}
    assert counts["Real one"]["Deepfake"] == policy.evidence.photos_called_deepfake
    assert counts["Deepfake"]["Real one"] == policy.evidence.deepfakes_called_real
    assert decisions["unsure"]["value"] == policy.evidence.unsure / 80
    assert f"Decisions: unsure {policy.evidence.unsure / 80:.4f}" in run.stdout


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), ("{", "not JSON"), ('{"format": 1}', "not a policy")]
)
def test_a_policy_that_cannot_be_used_is_told_before_anything_else(tmp_path: Path, content, reason: str) -> None:
    path = tmp_path / "policy.json"
    if content is not None:
        path.write_text(content)
    run = deepfake("classify", tmp_path, "--policy", path, "--url", "grpc://127.0.0.1:9")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith(f"deepfake: {path}: ")
    assert reason in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_policy_that_cannot_be_written_is_told(trained_triton, doubtful_faces: Path, tmp_path: Path) -> None:
    options = ["--url", trained_triton.grpc_url, "--false-positive-rate", "0.2"]
    (tmp_path / "file").write_text("")
    for output in (tmp_path, tmp_path / "file" / "policy.json"):
        run = deepfake("calibrate", doubtful_faces, "--output", output, *options)
        assert (run.exit_code, run.stdout) == (2, "")
        assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("rate", ["0", "0.5", "-1", "nan", "x"])
def test_rates_that_make_no_sense_are_wrong_usage(tmp_path: Path, rate: str) -> None:
    run = deepfake("calibrate", tmp_path, "--false-positive-rate", rate)
    assert (run.exit_code, run.stdout) == (2, "")
    assert "--false-positive-rate" in run.stderr
