"""Changes to a copied model repository: short queues, and a TorchScript model that fails when it is told to."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

QUEUE_LIMIT = 8
FAILING_MODEL = "fails_below_zero"
_CONFIGURATION = f"""
name: "{FAILING_MODEL}"
backend: "pytorch"
max_batch_size: 8
input [ {{ name: "numbers", data_type: TYPE_FP32, dims: [ 1 ] }} ]
output [ {{ name: "same", data_type: TYPE_FP32, dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU }} ]
"""


class _FailsBelowZero(torch.nn.Module):
    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        if bool((numbers < 0).any()):
            raise ValueError("a number below zero")
        return numbers


def write_failing_model(repository: Path) -> None:
    """Add it to the models in `repository`."""
    folder = repository / FAILING_MODEL
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(_CONFIGURATION)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself is deprecated
        torch.jit.script(_FailsBelowZero()).save(str(folder / "1" / "model.pt"))


def limit_queues(repository: Path, requests: int = QUEUE_LIMIT) -> None:
    """Let each queue of the models in `repository` hold that many requests, on a CPU."""
    for path in repository.glob("*/configs/cpu.pbtxt"):
        path.write_text(path.read_text().replace("max_queue_size: 256", f"max_queue_size: {requests}"))
