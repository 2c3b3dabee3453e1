"""`deepfake evaluate --reference`: the served model beside the model card's own code."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from deepfake_cli.evaluate import load_reference
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.export import Precision, export_model
from deepfake_evaluation import InputError
from deepfake_evaluation.reference import Comparison, compare, reference_of, reference_part
from deepfake_evaluation.report import Part
from deepfake_evaluation.run import Prediction, ServedModel, ask_model, open_run
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, SiglipForImageClassification

from tests.support.checkpoints import LABELS, make_checkpoint
from tests.support.commands import deepfake
from tests.support.exports import SilentProgress, exported_files
from tests.support.hub import COMMIT, fake_hub
from tests.support.pictures import encoded, photo_like, save_varied
from tests.support.servers import running

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty images of many formats, sizes and modes, in the folders of the labels as it falls. Not to be changed."""
    folder = tmp_path_factory.mktemp("varied")
    for label in LABELS:
        (folder / label).mkdir()
    for number, file in enumerate(save_varied(folder)):
        file.rename(folder / LABELS[number % 2] / file.name)
    return folder


def card(folder: Path, path: Path) -> list[float]:
    """The model card's code; its page gets the array from Gradio, which turns photos upright."""
    model = SiglipForImageClassification.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    array = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    image = Image.fromarray(array).convert("RGB")
    inputs = processor(images=image, return_tensors="pt")
    with torch.no_grad():
        return torch.nn.functional.softmax(model(**inputs).logits, dim=1).squeeze().tolist()


def test_the_reference_is_what_the_card_does(checkpoint: Path, varied: Path) -> None:
    names = ("turned-6.jpg", "turned-3.png", "alpha-1.png", "colour-16.png", "cmyk.jpg")
    files = [file for name in names for file in varied.rglob(name)]
    assert len(files) == len(names)
    reference = load_reference(str(checkpoint), None, LABELS, SilentProgress())
    for file in files:
        np.testing.assert_allclose(reference.probabilities(file), card(checkpoint, file), atol=1e-6)


@pytest.mark.parametrize("images", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_images_get_the_cards_probabilities_in_fp32(
    triton: EmbeddedTriton, checkpoint: Path, varied: Path, tmp_path: Path, images: int
) -> None:
    folder = tmp_path / "images"
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for file in sorted((varied / label).iterdir())[: images // 2]:
            shutil.copy(file, folder / label)
    formats = [("JPEG", "RGB"), ("PNG", "RGB"), ("WEBP", "RGB"), ("JPEG", "L"), ("PNG", "P"), ("JPEG", "CMYK")]
    for number in range(images - 50):
        format_name, mode = formats[number % len(formats)]
        image = photo_like(60 + 13 * number % 500, 60 + 29 * number % 400, 1000 + number, mode)
        (folder / LABELS[number % 2] / f"{number}.{format_name.lower()}").write_bytes(encoded(image, format_name))
    output = tmp_path / "out"
    run = deepfake("evaluate", folder, "--url", triton.grpc_url, "--output", output, "--reference-model", checkpoint)
    assert run.exit_code == 0, run.stderr
    found = json.loads((output / "report.json").read_text())["reference"]
    assert found["images"] == images
    assert found["unread"] == []
    assert found["mean_probability_difference"] < found["max_probability_difference"] < 1e-5
    assert found["labels_changed"]["count"] == 0
    assert found["same_weights"] is True
    assert (found["model_id"], found["precision"], found["server_precision"]) == (str(checkpoint), "fp32", "fp32")
    assert f"{images} images, max |Δprobability|" in run.stdout
    assert f"Labels changed: 0 of {images}" in run.stdout
    assert "other weights" not in run.stdout


@pytest.fixture(scope="module")
def in_half_precision(
    repository: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedTriton]:
    """Version 1 in bf16, version 2 in fp16."""
    served = Path(shutil.copytree(repository, tmp_path_factory.mktemp("half") / "model_repository"))
    for version, precision in ((1, Precision.BF16), (2, Precision.FP16)):
        export_model(str(checkpoint), None, precision, served, SilentProgress(), version)
    with running(served) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "precision", "least", "most"), [("1", "bf16", 1e-5, 0.02), ("2", "fp16", 1e-6, 0.004)]
)
def test_half_precision_tells_what_it_costs(
    in_half_precision: EmbeddedTriton, checkpoint: Path, labelled_faces: Path, tmp_path: Path,
    version: str, precision: str, least: float, most: float,
) -> None:  # fmt: skip
    client = DeepfakeClient(in_half_precision.grpc_url, model_version=version)
    part = measured(client, labelled_faces, checkpoint, tmp_path)
    assert f"the server runs {precision}" in part.text
    assert part.figures["server_precision"] == precision
    assert least < part.figures["max_probability_difference"] < most
    changed = part.figures["labels_changed"]
    assert changed["count"] == len(changed["files"])
    assert f"Labels changed: {changed['count']} of 80" in part.text


def measured(client: DeepfakeClient, folder: Path, named: Path, working: Path) -> Part:
    """The comparison as `deepfake evaluate` makes it, without the rest of the report."""
    reference = load_reference(str(named), None, LABELS, SilentProgress())
    with client, open_run(client, folder, working / "answers.jsonl") as run:
        return reference_part(run.model, reference, compare(run.classify(), folder, reference.probabilities))


def test_every_label_that_differs_is_listed_with_both_scores(
    triton: EmbeddedTriton, labelled_faces: Path, trained: Path, tmp_path: Path
) -> None:
    """Against another checkpoint than the served one, which is said as well."""
    part = measured(DeepfakeClient(triton.http_url), labelled_faces, trained, tmp_path)
    files = sorted(filter(Path.is_file, labelled_faces.rglob("*")))
    with DeepfakeClient(triton.grpc_url) as client:
        server = [dict(verdict.scores) for verdict in client.classify_many(files)]
    reference = load_reference(str(trained), None, LABELS, SilentProgress())
    transformers = [dict(zip(LABELS, reference.probabilities(file), strict=True)) for file in files]
    expected = {
        file.relative_to(labelled_faces).as_posix(): (ours, theirs)
        for file, ours, theirs in zip(files, server, transformers, strict=True)
        if max(ours, key=ours.__getitem__) != max(theirs, key=theirs.__getitem__)
    }
    assert expected
    changed = part.figures["labels_changed"]
    assert {each["file"] for each in changed["files"]} == set(expected)
    for each in changed["files"]:
        ours, theirs = expected[each["file"]]
        assert each["server"] == pytest.approx(ours, abs=1e-5)
        assert each["reference"] == pytest.approx(theirs, abs=1e-6)
    share = changed["share"]
    assert share.low < share.value == len(expected) / 80 < share.high
    assert part.figures["same_weights"] is False
    assert "The reference has other weights than" in part.text


def prediction(name: str, deepfake: float) -> Prediction:
    return Prediction(f"Deepfake/{name}", (deepfake, 1 - deepfake))


def part_of(comparison: Comparison) -> Part:
    """What the report says of a comparison with a reference that is not looked at."""
    reference = SimpleNamespace(model_id="x", revision=None, weights_sha256={}, processor=None)
    return reference_part(ServedModel("m", "1", tuple(LABELS), None), reference, comparison)


def test_the_figures_of_a_comparison() -> None:
    predictions = [
        prediction("same", 0.9),
        prediction("near", 0.52),
        prediction("broken", 0.3),
        prediction("strange", 0.3),
        Prediction("Deepfake/text.jpg", None, "not an image"),
    ]
    answers = {"same": (0.9, 0.1), "near": (0.48, 0.52), "strange": (float("nan"), float("nan"))}

    def reference(path: Path) -> tuple[float, float]:
        if path.name == "broken":
            raise OSError("truncated\nfile")
        return answers[path.name]

    advanced: list[None] = []
    part = part_of(compare(predictions, Path("x"), reference, lambda: advanced.append(None)))
    assert len(advanced) == 5
    assert part.figures["images"] == 2
    assert part.figures["unread"] == [
        {"file": "Deepfake/broken", "error": "truncated file"},
        {"file": "Deepfake/strange", "error": "its probabilities are not finite"},
    ]
    assert part.figures["max_probability_difference"] == pytest.approx(0.04)
    assert part.figures["mean_probability_difference"] == pytest.approx(0.02)
    changed = part.figures["labels_changed"]
    assert [each["file"] for each in changed["files"]] == ["Deepfake/near"]
    assert "Deepfake/near: server Deepfake 0.5200, transformers Real one 0.5200" in part.text
    assert "not compared: 2" in part.text


def test_a_comparison_of_nothing_is_no_error() -> None:
    part = part_of(compare([], Path("x"), lambda _: (1.0, 0.0)))
    assert part.text.endswith("\nLabels changed: 0 of 0, -")
    assert part.figures["labels_changed"]["share"] is None


def test_a_long_list_is_cut_for_the_person_and_not_in_the_report() -> None:
    part = part_of(compare([prediction(str(number), 0.6) for number in range(50)], Path("x"), lambda _: (0.4, 0.6)))
    assert len(part.figures["labels_changed"]["files"]) == 50
    assert part.text.count("Deepfake/") == 20
    assert part.text.endswith("… and 30 more, see report.json")


@pytest.fixture(scope="module")
def from_the_hub(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A server of weights that were exported from `someone/faces` on the Hub."""
    served = Path(shutil.copytree(repository, tmp_path_factory.mktemp("hub") / "model_repository"))
    _, provenance = exported_files(served)
    document = {**json.loads(provenance.read_text()), "model_id": "someone/faces", "revision": COMMIT}
    provenance.write_text(json.dumps(document))
    with running(served) as server:
        yield server


@pytest.mark.slow
def test_the_reference_is_fetched_at_the_revision_that_the_server_names(
    from_the_hub: EmbeddedTriton, checkpoint: Path, labelled_faces: Path, tmp_path: Path
) -> None:
    """The Hub's address is read when its library is imported, so this runs a process; then without the Hub."""
    command = [sys.executable, "-m", "deepfake_cli", "evaluate", labelled_faces, "--reference"]
    options = ["--url", from_the_hub.grpc_url, "--output", tmp_path / "out"]
    with fake_hub(checkpoint) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        run = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, env=environment)
        assert (run.returncode, run.stderr) == (0, "")
        assert hub.requested == {"config.json", "preprocessor_config.json", "model.safetensors"}
    found = json.loads((tmp_path / "out" / "report.json").read_text())["reference"]
    assert (found["model_id"], found["revision"], found["same_weights"]) == ("someone/faces", COMMIT, True)
    assert found["max_probability_difference"] < 1e-5
    assert f"Reference: someone/faces at {COMMIT} in transformers" in run.stdout


def test_weights_from_a_folder_have_to_be_named(triton: EmbeddedTriton, labelled_faces: Path, tmp_path: Path) -> None:
    run = deepfake("evaluate", labelled_faces, "--url", triton.grpc_url, "--output", tmp_path / "out", "--reference")
    assert (run.exit_code, run.stdout) == (2, "")
    assert "--reference-model" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_reference_that_cannot_be_had_is_told_before_the_images_are_classified(
    triton: EmbeddedTriton, labelled_faces: Path, tmp_path: Path
) -> None:
    swapped = make_checkpoint(tmp_path / "swapped", labels=LABELS[::-1])
    for named, reason in ((tmp_path / "nowhere", "no such folder"), (swapped, "its labels are «Real one», «Deepfake»")):
        options = ["--url", triton.grpc_url, "--output", tmp_path / "out", "--reference-model", named]
        run = deepfake("evaluate", labelled_faces, *options)
        assert (run.exit_code, run.stdout) == (1, "")
        assert reason in run.stderr
        assert run.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "report.json").exists()


def served(client: DeepfakeClient, **changes: object) -> ServedModel:
    """The served model, with fields of its provenance changed."""
    model = ask_model(client)
    return dataclasses.replace(model, provenance=dataclasses.replace(model.provenance, **changes))


def test_a_stand_in_is_made_again(
    triton: EmbeddedTriton, labelled_faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of full size it would take a minute here, so a small one is made in its place."""
    monkeypatch.setattr(
        "deepfake_deploy.export.checkpoint.write_stand_in",
        lambda folder, labels: make_checkpoint(folder, labels=labels),
    )
    with DeepfakeClient(triton.grpc_url) as client:
        model = served(client, weights="stand-in", model_id="stand-in")
        assert reference_of(model) == ("stand-in", None)
        file = next(filter(Path.is_file, labelled_faces.rglob("*")))
        scores = tuple(client.classify(file).scores.values())
    reference = load_reference("stand-in", None, LABELS, SilentProgress())
    assert (reference.model_id, reference.revision) == ("stand-in", None)
    assert reference.probabilities(file) == pytest.approx(scores, abs=1e-5)


def test_a_server_that_does_not_tell_its_weights_needs_a_name(triton: EmbeddedTriton) -> None:
    with DeepfakeClient(triton.grpc_url) as client:
        model = ask_model(client)
    with pytest.raises(InputError, match="--reference-model"):
        reference_of(dataclasses.replace(model, provenance=None))


def test_an_empty_name_is_wrong_usage(labelled_faces: Path) -> None:
    run = deepfake("evaluate", labelled_faces, "--reference-model", "")
    assert run.exit_code == 2
    assert "is a variable not set?" in run.stderr
