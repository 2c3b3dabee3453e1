"""`deepfake export`: what it writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import transformers
from deepfake_deploy.export import Precision, export_model
from deepfake_deploy.export.checkpoint import Checkpoint, load_model, load_processor
from deepfake_deploy.export.contract import check_preprocessing
from deepfake_deploy.export.torchscript import ClassifierGraph, best_precision

from tests.support.checkpoints import LABELS
from tests.support.exports import SilentProgress, exported_files, load_exported


def test_the_provenance_says_what_was_exported_and_how(repository: Path, checkpoint: Path) -> None:
    model, provenance_file = exported_files(repository)
    provenance = json.loads(provenance_file.read_text())
    weights = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert provenance["weights"] == "checkpoint"
    assert provenance["model_id"] == str(checkpoint)
    assert provenance["revision"] is None
    assert provenance["weights_sha256"] == {"model.safetensors": weights}
    assert provenance["model_pt_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert provenance["precision"] == "fp32"
    assert provenance["torch_version"] == torch.__version__
    assert provenance["transformers_version"] == transformers.__version__
    assert provenance["labels"] == LABELS
    assert provenance["preprocessing"]["resample"] == "bilinear"
    assert provenance["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert provenance["parity"]["batch_sizes"] == [1, 2, 5, 8]
    assert 0 < provenance["parity"]["max_logit_difference"] <= 1e-4


def test_the_graph_takes_uint8_pixels_and_returns_fp32_probabilities_and_logits(repository: Path) -> None:
    module = load_exported(repository)
    assert [argument.name for argument in module.forward.schema.arguments] == ["self", "pixels"]
    with torch.inference_mode():
        probabilities, logits = module(torch.randint(0, 256, (3, 224, 224, 3), dtype=torch.uint8))
    assert (probabilities.dtype, logits.dtype) == (torch.float32, torch.float32)
    assert probabilities.shape == logits.shape == (3, 2)
    torch.testing.assert_close(probabilities, torch.softmax(logits, dim=-1))


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16])
def test_half_precision_halves_the_file_and_stays_within_its_limits(
    precision: Precision, repository: Path, checkpoint: Path, empty_repository: Path
) -> None:
    export = export_model(str(checkpoint), None, precision, empty_repository, SilentProgress())
    assert 0 < export.parity.max_probability_difference <= 0.02
    assert export.parity.decided_label_changes == 0
    probabilities, logits = load_exported(empty_repository)(torch.zeros((1, 224, 224, 3), dtype=torch.uint8))
    assert (probabilities.dtype, logits.dtype) == (torch.float32, torch.float32)
    assert export.size_bytes < 0.7 * exported_files(repository)[0].stat().st_size


def test_the_residual_stream_is_contiguous_in_every_layer(checkpoint: Path) -> None:
    small = Checkpoint("small", None, checkpoint)
    model = load_model(small)
    graph = ClassifierGraph(model, check_preprocessing(load_processor(small), "small"), Precision.FP32)
    contiguous = []
    for layer in graph.encoder.layers:
        layer.register_forward_pre_hook(lambda _, inputs: contiguous.append(inputs[0].is_contiguous()))
    graph(torch.zeros((2, 224, 224, 3), dtype=torch.uint8))
    assert contiguous == [True, True]


def test_an_export_is_the_same_at_every_run(repository: Path, checkpoint: Path, empty_repository: Path) -> None:
    export_model(str(checkpoint), None, Precision.FP32, empty_repository, SilentProgress())
    first, second = (json.loads(exported_files(each)[1].read_text()) for each in (repository, empty_repository))
    assert first["parity"] == second["parity"]


def test_auto_takes_the_fastest_format_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(*, cuda: bool, **capabilities: bool) -> Precision:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        return best_precision()

    assert machine(cuda=True, avx512_bf16=True) is Precision.FP16
    assert machine(cuda=False, avx512_bf16=True) is Precision.BF16
    assert machine(cuda=False, amx_bf16=True) is Precision.BF16
    assert machine(cuda=False, avx2=True, avx512_bf16=False) is Precision.FP32
