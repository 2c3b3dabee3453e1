"""TorchScript: trace, freeze, write and read.

PyTorch calls it deprecated since 2.11 in favour of torch.export; Triton 26.08 serves it, and PyTorch 2.13 to 2.15 write
and read it (Python 3.13 at most).
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import torch

from .contract import IMAGE_SIZE
from .graph import ClassifierGraph


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
