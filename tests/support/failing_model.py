"""A TorchScript model that fails when it is told to."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

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
