"""TorchScript: the graph that Triton serves, traced, frozen, written and read.

PyTorch calls it deprecated since 2.11 in favour of torch.export; Triton 26.08 serves it, and PyTorch 2.13 to 2.15 write
and read it (Python 3.13 at most).
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator
from enum import Enum

import torch
from torch import Tensor, nn
from transformers import SiglipForImageClassification

from .contract import IMAGE_SIZE, Preprocessing
from .int8 import checked, quantise


class Precision(str, Enum):
    """Format of the encoder's weights and activations; normalisation and outputs are fp32 in each."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"

    @property
    def dtype(self) -> torch.dtype:
        """Of what is not int8."""
        return {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(self, torch.float32)


def int8_refusal() -> str | None:
    """Why this machine cannot compute int8, in a sentence; None where it can."""
    if not torch.backends.mkldnn.is_available():
        return "this build of torch has no oneDNN, without which int8 is slow: export with --precision fp32"
    try:
        checked(torch.zeros(1, dtype=torch.uint8))
    except RuntimeError as error:
        return str(error)
    return None


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


class ClassifierGraph(nn.Module):
    """A SigLIP classifier from uint8 pixels to softmax, ready to be traced.

    Args:
        model: the classifier in fp32; left unchanged.
        preprocessing: the checkpoint's numbers.
        precision: format of the encoder. Normalisation, pooling, classifier and softmax stay in fp32: they cost
            nothing, and TorchScript would otherwise carry half-precision rounding into what callers read.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: SiglipForImageClassification, preprocessing: Preprocessing, precision: Precision) -> None:
        super().__init__()
        self.dtype = precision.dtype
        vision = copy.deepcopy(model.vision_model).to(self.dtype)
        self.check = None
        if precision is Precision.INT8:
            with _known_warnings():
                quantise(vision.encoder)
                self.check = torch.jit.script(checked)
        self.embeddings, self.encoder, self.post_layernorm = vision.embeddings, vision.encoder, vision.post_layernorm
        self.classifier = copy.deepcopy(model.classifier)
        self.register_buffer("scale", torch.tensor(preprocessing.rescale_factor, dtype=torch.float32))
        self.register_buffer("mean", torch.tensor(preprocessing.mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Classify a batch.

        Args:
            pixels: uint8, (N, 224, 224, 3), RGB.

        Returns:
            probabilities and logits, each fp32 (N, classes). config.pbtxt relies on this order.
        """
        if self.check is not None:
            pixels = self.check(pixels)
        images = (pixels.permute(0, 3, 1, 2).to(torch.float32) * self.scale - self.mean) / self.std
        # The patch embedding ends in a transposed view; without the copy every layer would read and write the
        # residual stream across memory (huggingface/diffusers#14236 measures what that costs on GPUs).
        hidden = self.embeddings(images.to(self.dtype)).contiguous()
        hidden = self.encoder(inputs_embeds=hidden).last_hidden_state
        pooled = self.post_layernorm(hidden).to(torch.float32).mean(dim=1)
        logits = self.classifier(pooled)
        return torch.softmax(logits, dim=-1), logits


def trace_and_freeze(graph: ClassifierGraph) -> torch.jit.ScriptModule:
    """Trace on the CPU, since a device would be baked in, and at a batch of two, since a one would be."""
    example = torch.zeros((2, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8)
    with torch.no_grad(), _known_warnings():
        traced = torch.jit.trace(graph.eval(), example, check_trace=False)
        frozen: torch.jit.ScriptModule = torch.jit.freeze(traced)
    return frozen


def serialise(module: torch.jit.ScriptModule) -> bytes:
    """The content of a model.pt.

    In memory, so that what is compared is what is written, and a full disk is the file's error and not torch's.
    """
    buffer = io.BytesIO()
    with _known_warnings():
        torch.jit.save(module, buffer)
    return buffer.getvalue()


def deserialise(content: bytes, device: torch.device) -> torch.jit.ScriptModule:
    """The module of a model.pt, on `device`."""
    with _known_warnings():
        module: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(content), map_location=device)
    return module


@contextlib.contextmanager
def _known_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\..*")
        # Conditions on shapes that the contract fixes; that other batch sizes work is measured afterwards.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield
