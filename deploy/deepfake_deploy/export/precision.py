"""In which floating-point format the encoder runs."""

from __future__ import annotations

from enum import Enum

import torch


class Precision(str, Enum):
    """Format of the encoder's weights and activations; normalisation and outputs are fp32 in each."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype."""
        return {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}[self]


def best_precision() -> Precision:
    """What `--precision auto` means on this machine.

    fp16 with a CUDA device; bf16 where the CPU multiplies bf16 matrices natively (elsewhere it is slower than fp32);
    else fp32.
    """
    if torch.cuda.is_available():
        return Precision.FP16
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        return Precision.BF16
    return Precision.FP32
