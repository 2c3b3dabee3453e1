"""What a served model is held against: the bare TorchScript model, in a process of its own, and the model card's code.

A process, because the allocator and OpenMP read their settings from the environment when they start.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from unittest import mock

import torch
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT
from PIL import Image

_QUEUED_ON_A_GPU = 8  # before it is waited for, so that it never waits for Python

#: Of a batch size and seconds, `images_per_second`.
BareModel = Callable[[int, float], dict[str, float]]


@contextlib.contextmanager
def bare_model(model: Path, device: str = "cpu") -> Iterator[BareModel]:
    """A process that has loaded a model.pt with the settings that the embedded Triton gives its backend.

    A measurement is at least two forward passes, after two that do not count.

    Raises:
        ChildProcessError: it failed, or ended.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as process:

        def ask(batch: int, seconds: float) -> dict[str, float]:
            try:
                return {"images_per_second": process.submit(_measure, str(model), device, batch, seconds).result()}
            except Exception as error:  # whatever torch raises
                raise ChildProcessError(f"the bare model failed: {type(error).__name__}: {error}") from None

        with mock.patch.dict(os.environ, TORCH_ENVIRONMENT):
            ask(1, 0.0)
        yield ask


@cache
def _loaded(model: str, device: str) -> Callable[[torch.Tensor], object]:
    module: Callable[[torch.Tensor], object] = torch.jit.load(model, map_location=device)
    return module


def _measure(model: str, device: str, batch: int, seconds: float) -> float:
    """Images per second."""
    pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8, device=device)
    forward = partial(_loaded(model, device), pixels)
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        repeated(forward, 0.0, device)
        times, elapsed = repeated(forward, seconds, device)
    return times * batch / elapsed


def best_batch(bare: BareModel, batches: Sequence[int], seconds: float) -> int:
    """The batch size with the most images per second, by the better of two short rounds each, in turns."""
    return max((bare(batch, seconds)["images_per_second"], batch) for batch in (*batches, *batches))[1]


def card_code(checkpoint: Path) -> Callable[[bytes], list[float]]:
    """The card's code, in fp32: the probabilities of one image file."""
    from transformers import AutoImageProcessor, SiglipForImageClassification

    processor = AutoImageProcessor.from_pretrained(checkpoint)
    model = SiglipForImageClassification.from_pretrained(checkpoint)

    def probabilities(file: bytes) -> list[float]:
        inputs = processor(images=Image.open(io.BytesIO(file)).convert("RGB"), return_tensors="pt")
        with torch.no_grad():
            scores: list[float] = torch.softmax(model(**inputs).logits, dim=1)[0].tolist()
        return scores

    return probabilities


def repeated(run: Callable[[], object], seconds: float, device: str = "cpu") -> tuple[int, float]:
    """How often it ran, twice at least, and in what time."""
    at_once = _QUEUED_ON_A_GPU if device == "cuda" else 1
    began, times = time.perf_counter(), 0
    while times < 2 or time.perf_counter() - began < seconds:
        for _ in range(at_once):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
        times += at_once
    return times, time.perf_counter() - began
