"""Checkpoints and targets that `deepfake export` refuses: one line, exit code 1, and what was there stays servable."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from deepfake_cli.app import deepfake
from deepfake_deploy.export import ExportError, Precision, export_model
from deepfake_deploy.export.target import ExportTarget
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import make_checkpoint
from tests.support.exports import SilentProgress, exported_files, load_exported

EXPORT = [sys.executable, "-m", "deepfake_cli", "export"]


class Refusal:
    """Runs `deepfake export` on a repository that holds an earlier export, and expects it to fail without a trace."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self._before = self._content()

    def of(self, model: Path | str, *arguments: str) -> str:
        """The line that the command wrote to stderr."""
        command = ["export", "--model", str(model), "--repository", str(self.repository), *arguments]
        result = CliRunner().invoke(deepfake, command)
        return self.check(result.exit_code, result.stdout, result.stderr)

    def in_a_process(self, *command: str, **environment: str) -> str:
        """The same for a whole process, which `command` starts."""
        run = subprocess.run(
            [*command, "--repository", str(self.repository)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment},
        )
        return self.check(run.returncode, run.stdout, run.stderr)

    def check(self, status: int, stdout: str, stderr: str) -> str:
        assert status == 1, stderr
        assert stdout == ""
        assert stderr.count("\n") == 1, stderr
        assert stderr.startswith("deepfake: ")
        assert self._content() == self._before
        assert len(load_exported(self.repository)(torch.zeros((1, 224, 224, 3), dtype=torch.uint8))) == 2
        return stderr

    def _content(self) -> dict[str, bytes]:
        # Every file, so that a half-written one left behind would show as well.
        return {str(path): path.read_bytes() for path in self.repository.rglob("*") if path.is_file()}


@pytest.fixture
def refusal(repository: Path, tmp_path: Path) -> Refusal:
    """A repository of its own with an earlier export in it."""
    return Refusal(Path(shutil.copytree(repository, tmp_path / "model_repository")))


@pytest.fixture
def damaged(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the small checkpoint, to be damaged."""
    return Path(shutil.copytree(checkpoint, tmp_path / "damaged"))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_swapped_labels(refusal: Refusal, damaged: Path) -> None:
    edit_json(damaged / "config.json", lambda config: config.update(id2label={"0": "Real one", "1": "Deepfake"}))
    assert "its labels are «Real one», «Deepfake»" in refusal.of(damaged)


def test_other_labels(refusal: Refusal, tmp_path: Path) -> None:
    message = refusal.of(make_checkpoint(tmp_path / "cats", labels=["cat", "dog", "bird"]))
    assert "«cat», «dog», «bird»" in message
    assert "«Deepfake», «Real one»" in message


def test_another_image_size(refusal: Refusal, tmp_path: Path) -> None:
    message = refusal.of(make_checkpoint(tmp_path / "large", image_size=256))
    assert "its image size is 256, the contract's is 224" in message


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("resample", 3, "resample is 3 (bicubic), 2 (bilinear) expected"),
        ("size", {"height": 384, "width": 384}, "size is {'height': 384, 'width': 384}"),
        ("image_mean", [0.485, 0.456, 0.406], "image_mean is [0.485, 0.456, 0.406]"),
        ("image_std", [0.229, 0.224, 0.225], "image_std is [0.229, 0.224, 0.225]"),
        ("do_normalize", False, "do_normalize is False"),
        ("image_processor_type", "ViTImageProcessor", "image_processor_type is 'ViTImageProcessor'"),
    ],
)
def test_other_preprocessing(refusal: Refusal, damaged: Path, key: str, value: object, found: str) -> None:
    edit_json(damaged / "preprocessor_config.json", lambda config: config.update({key: value}))
    assert found in refusal.of(damaged)


def test_a_missing_resample_means_transformers_default_of_bicubic(refusal: Refusal, damaged: Path) -> None:
    edit_json(damaged / "preprocessor_config.json", lambda config: config.pop("resample"))
    assert "resample is 3 (bicubic)" in refusal.of(damaged)


def test_another_architecture(refusal: Refusal, damaged: Path) -> None:
    edit_json(
        damaged / "config.json",
        lambda config: config.update(model_type="vit", architectures=["ViTForImageClassification"]),
    )
    assert "ViTForImageClassification is not a SigLIP image classifier" in refusal.of(damaged)


def test_a_siglip_that_does_not_classify(refusal: Refusal, damaged: Path) -> None:
    edit_json(damaged / "config.json", lambda config: config.update(architectures=["SiglipModel"]))
    assert "SiglipModel is not a SigLIP image classifier" in refusal.of(damaged)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type is multi_label_classification"),
        ({"problem_type": "regression"}, "problem_type is regression"),
        ({"problem_type": "ranking"}, "problem_type"),
        ({"function_to_apply": "sigmoid"}, "function_to_apply is sigmoid"),
        ({"function_to_apply": "none"}, "function_to_apply is none"),
        ({"id2label": {"0": "Deepfake"}}, "num_labels is 1"),
        ({"id2label": {"1": "Deepfake", "2": "Real one"}}, "do not number the labels alike"),
        ({"label2id": {"Deepfake": 1, "Real one": 0}}, "do not number the labels alike"),
        ({"auto_map": {"AutoModelForImageClassification": "its_own.Head"}}, "auto_map names code of its own"),
    ],
)
def test_a_head_that_is_not_the_softmax_of_these_labels(
    refusal: Refusal, damaged: Path, change: dict[str, Any], found: str
) -> None:
    edit_json(damaged / "config.json", lambda config: config.update(change))
    assert found in refusal.of(damaged)


def test_a_single_logit_is_refused_by_a_repository_of_one_label_too(tmp_path: Path, empty_repository: Path) -> None:
    (empty_repository / "deepfake_vs_real" / "labels.txt").write_text("Deepfake\n")
    folder = make_checkpoint(tmp_path / "one", labels=["Deepfake"])
    with pytest.raises(ExportError, match="num_labels is 1"):
        export_model(str(folder), None, None, empty_repository, SilentProgress())


def test_an_adapter_beside_the_model(refusal: Refusal, damaged: Path) -> None:
    (damaged / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert "adapter_config.json: an adapter is not part of the export" in refusal.of(damaged)


def test_a_revision_or_a_folder_whose_name_is_no_text(refusal: Refusal, damaged: Path) -> None:
    assert "no revision" in refusal.of("someone/faces", "--revision", "v\udce9")
    assert "is not UTF-8; rename it" in refusal.of(damaged.rename(damaged.with_name("caf\udce9")))


def test_only_pickle_weights(refusal: Refusal, damaged: Path) -> None:
    torch.save(load_file(damaged / "model.safetensors"), damaged / "pytorch_model.bin")
    (damaged / "model.safetensors").unlink()
    assert "only pickle weights (pytorch_model.bin)" in refusal.of(damaged)


def test_no_weights(refusal: Refusal, damaged: Path) -> None:
    (damaged / "model.safetensors").unlink()
    assert "no weights" in refusal.of(damaged)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_safetensors(refusal: Refusal, damaged: Path, share: float) -> None:
    path = damaged / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated or damaged safetensors" in refusal.of(damaged)


def test_missing_weights_are_never_made_up(refusal: Refusal, damaged: Path) -> None:
    path = damaged / "model.safetensors"
    weights = load_file(path)
    save_file(
        {key: value for key, value in weights.items() if not key.startswith("classifier.")}, path, {"format": "pt"}
    )
    message = refusal.of(damaged)
    assert "classifier.bias" in message
    assert "missing" in message


def test_weights_of_another_shape(refusal: Refusal, damaged: Path) -> None:
    edit_json(damaged / "config.json", lambda config: config["vision_config"].update(intermediate_size=96))
    message = refusal.of(damaged)
    assert "of another shape" in message
    assert "mlp.fc1" in message


def test_weights_that_are_not_numbers(refusal: Refusal, damaged: Path) -> None:
    path = damaged / "model.safetensors"
    weights = load_file(path)
    weights["classifier.bias"] = torch.full_like(weights["classifier.bias"], float("nan"))
    save_file(weights, path, {"format": "pt"})
    assert "differs from transformers by nan" in refusal.of(damaged, "--precision", "fp32")


def test_a_config_that_is_not_json(refusal: Refusal, damaged: Path) -> None:
    (damaged / "config.json").write_text("{")
    assert "not a valid JSON file" in refusal.of(damaged)


def test_an_empty_folder(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "config.json: no such file" in refusal.of(tmp_path / "empty")


def test_a_folder_that_does_not_exist(refusal: Refusal, tmp_path: Path) -> None:
    assert "no such folder" in refusal.of(tmp_path / "nowhere")


def test_a_revision_of_a_folder(refusal: Refusal, checkpoint: Path) -> None:
    assert "--revision belongs to a model on the Hub" in refusal.of(checkpoint, "--revision", "main")


@pytest.mark.slow
def test_no_network(refusal: Refusal, tmp_path: Path) -> None:
    # Port 9 (discard) of loopback: refused at once, wherever this runs.
    message = refusal.in_a_process(
        *EXPORT, "--model", "someone/something", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path)
    )
    assert "the Hugging Face Hub cannot be reached" in message


@pytest.mark.slow
def test_a_full_disk(refusal: Refusal, checkpoint: Path) -> None:
    # A limit on the size of files gives the same kind of error as a full disk, at the same place.
    limited = ["/bin/bash", "-c", 'ulimit -f 64; trap "" XFSZ; exec "$@"', "-", *EXPORT]
    message = refusal.in_a_process(*limited, "--model", str(checkpoint), "--precision", "fp32")
    assert "cannot be written (File too large)" in message


def test_a_target_that_cannot_be_written(checkpoint: Path, empty_repository: Path) -> None:
    (empty_repository / "deepfake_vs_real" / "1").write_text("a file where the version folder should be")
    result = CliRunner().invoke(deepfake, ["export", "--model", str(checkpoint), "--repository", str(empty_repository)])
    assert result.exit_code == 1
    assert "cannot be written (Not a directory)" in result.stderr


def test_a_repository_without_labels(checkpoint: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(deepfake, ["export", "--model", str(checkpoint), "--repository", str(tmp_path)])
    assert result.exit_code == 1
    assert "labels.txt: No such file or directory" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_exports_at_once(refusal: Refusal, checkpoint: Path) -> None:
    with ExportTarget(refusal.repository).open():
        result = CliRunner().invoke(
            deepfake, ["export", "--model", str(checkpoint), "--repository", str(refusal.repository)]
        )
    refusal.check(result.exit_code, result.stdout, result.stderr)
    assert "another export is writing here" in result.stderr


def test_an_interrupted_export_leaves_what_was_there(refusal: Refusal, checkpoint: Path) -> None:
    class Interrupting(SilentProgress):
        def step(self, description: str) -> None:
            if description.startswith("Writing"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_model(str(checkpoint), None, Precision.FP32, refusal.repository, Interrupting())
    refusal.check(1, "", "deepfake: interrupted\n")


def test_what_a_killed_export_left_is_no_obstacle(refusal: Refusal, checkpoint: Path) -> None:
    model, _ = exported_files(refusal.repository)
    left = model.parent.with_name(".1.partial")
    left.mkdir()
    (left / "model.pt").write_bytes(b"half a model")
    export_model(str(checkpoint), None, Precision.FP32, refusal.repository, SilentProgress())
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.pt", "provenance.json"]
    assert not left.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"vision_config": [1, 2]},
        {"vision_config": "base"},
        {"architectures": 3},
        {"vision_config": {"patch_size": 0}},
        {"vision_config": {"num_hidden_layers": "two"}},
        {"vision_config": {"hidden_act": "no such thing"}},
        {"vision_config": {"image_size": 224.0}},
        {"text_config": "x"},
        {"dtype": "floaty"},
        {"id2label": "Deepfake"},
        {"quantization_config": {"load_in_8bit": True}},
    ],
)
def test_a_configuration_of_no_use_is_one_line(refusal: Refusal, damaged: Path, change: dict[str, Any]) -> None:
    edit_json(damaged / "config.json", lambda config: config.update(change))
    refusal.of(damaged)


@pytest.mark.parametrize("change", [{"resample": [2]}, {"resample": {"a": 1}}, {"size": 224}, {"do_pad": True}])
def test_a_processor_of_no_use_is_one_line(refusal: Refusal, damaged: Path, change: dict[str, Any]) -> None:
    edit_json(damaged / "preprocessor_config.json", lambda config: config.update(change))
    refusal.of(damaged)


def test_json_nested_without_end(refusal: Refusal, damaged: Path) -> None:
    (damaged / "config.json").write_text("[" * 100_000)
    assert "config.json: transformers cannot read it: RecursionError" in refusal.of(damaged)


def test_a_checkpoint_that_asks_for_tuples_is_exported(damaged: Path, empty_repository: Path) -> None:
    edit_json(damaged / "config.json", lambda config: config.update(return_dict=False))
    export_model(str(damaged), None, Precision.FP32, empty_repository, SilentProgress())


def test_integer_weights(refusal: Refusal, damaged: Path) -> None:
    path = damaged / "model.safetensors"
    save_file({key: value.to(torch.int8) for key, value in load_file(path).items()}, path, {"format": "pt"})
    assert "holds I8 tensors" in refusal.of(damaged)


def test_half_precision_weights_are_exported(damaged: Path, empty_repository: Path) -> None:
    path = damaged / "model.safetensors"
    save_file({key: value.to(torch.float16) for key, value in load_file(path).items()}, path, {"format": "pt"})
    export_model(str(damaged), None, Precision.FP32, empty_repository, SilentProgress())


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../b.safetensors"}}'])
def test_an_index_of_shards_that_cannot_be_followed(refusal: Refusal, damaged: Path, content: str) -> None:
    (damaged / "model.safetensors").rename(damaged.parent / "b.safetensors")
    (damaged / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refusal.of(damaged)


def test_sharded_weights_are_exported_and_hashed_shard_by_shard(damaged: Path, empty_repository: Path) -> None:
    weights = load_file(damaged / "model.safetensors")
    (damaged / "model.safetensors").unlink()
    (damaged / "stray.safetensors").write_bytes(b"of no concern")
    names = sorted(weights)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, keys in shards.items():
        save_file({key: weights[key] for key in keys}, damaged / shard, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    (damaged / "model.safetensors.index.json").write_text(json.dumps(index))
    export_model(str(damaged), None, Precision.FP32, empty_repository, SilentProgress())
    provenance = json.loads(exported_files(empty_repository)[1].read_text())
    assert sorted(provenance["weights_sha256"]) == sorted(shards)


@pytest.mark.parametrize("model", ["~nosuchuser/x", "x" * 5000, "a\0b"])
def test_a_name_that_can_be_no_folder(refusal: Refusal, model: str) -> None:
    refusal.of(model)


def test_an_empty_name_is_wrong_usage(empty_repository: Path) -> None:
    result = CliRunner().invoke(deepfake, ["export", "--model", "", "--repository", str(empty_repository)])
    assert result.exit_code == 2
    assert CliRunner().invoke(deepfake, ["export", "--repository", ""]).exit_code == 2
