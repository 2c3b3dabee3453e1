"""`--precision int8`: the same verdicts as fp32, in every batch, or a sentence."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from deepfake_cli.app import deepfake
from deepfake_client import DeepfakeClient
from deepfake_deploy.export import ExportError, Precision, export_model, int8_refusal
from deepfake_deploy.export.int8 import Int8Linear, TanhGelu
from torch import nn

from tests.support.exports import SilentProgress, exported_files, exported_repository, load_exported
from tests.support.servers import running

if refusal := int8_refusal():
    pytest.skip(refusal, allow_module_level=True)

#: oneDNN then computes as on a CPU without VNNI.
OLD_CPU = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
INEXACT = "this CPU multiplies int8 inexactly"


@pytest.fixture(scope="module")
def int8_repository(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_repository(checkpoint, tmp_path_factory.mktemp("int8"), Precision.INT8)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Eight images; the brightness differs much, so that a scale for the whole batch would not fit each."""
    noise = torch.randint(0, 256, (8, 224, 224, 3), generator=torch.Generator().manual_seed(8))
    return (noise * torch.linspace(0.02, 1, 8).view(8, 1, 1, 1)).to(torch.uint8)


def test_it_is_within_half_of_its_limits_and_the_provenance_says_so(int8_repository: Path, repository: Path) -> None:
    model, provenance_file = exported_files(int8_repository)
    provenance = json.loads(provenance_file.read_text())
    assert provenance["precision"] == "int8"
    assert 0 < provenance["parity"]["max_probability_difference"] <= 0.01
    assert provenance["parity"]["decided_label_changes"] == 0
    assert model.stat().st_size < 0.7 * exported_files(repository)[0].stat().st_size


def test_a_verdict_does_not_depend_on_the_others_in_its_batch(int8_repository: Path, pixels: torch.Tensor) -> None:
    module = load_exported(int8_repository)
    with torch.inference_mode():
        together = module(pixels)[0]
        alone = torch.cat([module(each[None])[0] for each in pixels])
    assert (together - alone).abs().max() < 1e-5
    assert together[:, 0].max() - together[:, 0].min() > 1e-3  # they are not all the same


def test_a_layer_is_as_exact_as_eight_bits_are() -> None:
    random = torch.Generator().manual_seed(0)
    layers = [nn.Linear(96, 64), nn.Linear(96, 32)]
    with torch.no_grad():
        layers[0].weight[7] *= 1000  # neither this channel …
        hidden = torch.randn((3, 5, 96), generator=random)
        hidden[1, 2] *= 1000  # … nor this row costs the others any precision
        hidden[2, 4] = 0
        expected = torch.cat([layer(hidden) for layer in layers], dim=-1)
        found = Int8Linear(*layers)(hidden.clone())
    allowed = 2 / 127 * hidden.norm(dim=-1, keepdim=True) * torch.cat([each.weight for each in layers]).norm(dim=-1)
    assert bool(((found - expected).abs() <= allowed).all())
    bias = torch.cat([layer.bias for layer in layers])
    torch.testing.assert_close(found[2, 4], bias)


def test_the_activation_is_that_of_transformers() -> None:
    values = torch.linspace(-50, 50, 100_001)
    torch.testing.assert_close(TanhGelu()(values), nn.functional.gelu(values, approximate="tanh"), atol=1e-6, rtol=1e-6)


def test_the_file_loads_where_only_torch_is_installed(int8_repository: Path) -> None:
    model, _ = exported_files(int8_repository)
    program = (
        "import sys, torch; sys.modules['transformers'] = sys.modules['deepfake_deploy'] = None;"
        f"print(torch.jit.load({str(model)!r})(torch.zeros((1, 224, 224, 3), dtype=torch.uint8))[0].tolist())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    expected = load_exported(int8_repository)(torch.zeros((1, 224, 224, 3), dtype=torch.uint8))[0]
    np.testing.assert_allclose(json.loads(run.stdout), expected.detach().numpy(), atol=1e-6)


@pytest.mark.slow  # it starts a server of its own
def test_the_embedded_triton_gives_equal_verdicts_one_by_one_and_in_batches(
    int8_repository: Path, pixels: torch.Tensor
) -> None:
    with running(int8_repository) as server, DeepfakeClient(server.grpc_url) as client:
        together = client.classify_batch(pixels.numpy())
        alone = [client.classify_pixels(each) for each in pixels.numpy()]
        assert getattr(client.provenance(), "precision", None) == "int8"
    for one, other in zip(together, alone, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
    expected = load_exported(int8_repository)(pixels)[0].detach().numpy()
    np.testing.assert_allclose([list(each.scores.values()) for each in together], expected, atol=1e-5)


@pytest.mark.slow  # a process that loads torch
def test_a_cpu_without_exact_products_is_told_at_export(checkpoint: Path, empty_repository: Path) -> None:
    arguments = ["--model", str(checkpoint), "--precision", "int8", "--repository", str(empty_repository)]
    command = [sys.executable, "-m", "deepfake_cli", "export", *arguments]
    run = subprocess.run(command, env=OLD_CPU, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1
    assert INEXACT in run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert not exported_files(empty_repository)[0].exists()


@pytest.mark.slow  # it starts a server of its own
def test_a_cpu_without_exact_products_is_told_at_load(int8_repository: Path) -> None:
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    command = [sys.executable, "-m", "deepfake_cli", "serve", "--repository", str(int8_repository), *ports]
    run = subprocess.run(command, env=OLD_CPU, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1
    assert INEXACT in run.stderr
    assert "Traceback" not in run.stderr


def test_a_torch_without_onednn_is_told_at_export(
    checkpoint: Path, empty_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(ExportError, match=r"this build of torch has no oneDNN.* --precision fp32$"):
        export_model(str(checkpoint), None, Precision.INT8, empty_repository, SilentProgress())


def test_a_gpu_is_told_what_to_do(int8_repository: Path, pixels: torch.Tensor) -> None:
    module = load_exported(int8_repository).to("meta")  # a device that is not a CPU, and that every machine has
    with pytest.raises(torch.jit.Error, match="int8 weights are for CPUs: for a GPU, export with --precision fp16"):
        module(pixels.to("meta"))


@pytest.mark.parametrize(("chosen", "told"), [("auto", True), ("fp32", False)])
def test_auto_without_native_bf16_tells_of_int8(
    chosen: str, told: bool, checkpoint: Path, empty_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ["export", "--model", str(checkpoint), "--precision", chosen, "--repository", str(empty_repository)]
    run = CliRunner().invoke(deepfake, arguments)
    assert run.exit_code == 0
    assert json.loads(exported_files(empty_repository)[1].read_text())["precision"] == "fp32"
    assert ("--precision int8" in run.stderr) is told


def test_a_difference_over_its_limit_is_refused(checkpoint: Path, empty_repository: Path) -> None:
    parity = export_model(str(checkpoint), None, Precision.INT8, empty_repository, SilentProgress()).parity
    with pytest.raises(ExportError, match=r"the int8 graph differs from transformers by 0\.021 .*--precision fp32"):
        dataclasses.replace(parity, max_probability_difference=0.021).require(Precision.INT8)
