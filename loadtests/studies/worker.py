"""What a served model is held against: the bare TorchScript model, in a process of its own, and the model card's code.

A process, because the allocator and OpenMP read their settings from the environment when they start.
"""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

# Passes that are queued on a GPU before it is waited for, so that it never waits for Python.
QUEUED_PASSES = 8

#: Asked by keywords: `batch`, `seconds`, and what else differs from the usual, `threads` or the `attention`'s SDPBackend.
Ask = Callable[..., dict[str, float]]


@contextlib.contextmanager
def bare_model(model: Path, device: str = "cpu", environment: Mapping[str, str] = TORCH_ENVIRONMENT) -> Iterator[Ask]:
    """A process that has loaded a model.pt, and has `images_per_second` and `faults_per_image`, page faults.

    A measurement is at least two forward passes, after one that does not count.

    Args:
        environment: over this process's own; that which the embedded Triton gives its backend, unless told otherwise.

    Raises:
        ChildProcessError: it failed, or ended.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as process:

        def ask(**question: Any) -> dict[str, float]:
            try:
                return process.submit(_measure, str(model), device, **question).result()
            except Exception as error:  # whatever torch raises
                raise ChildProcessError(f"the bare model failed: {type(error).__name__}: {error}") from None

        with mock.patch.dict(os.environ, environment):
            ask(batch=1, seconds=0.0)
        yield ask


@functools.cache
def _loaded(model: str, device: str) -> tuple[Callable[[torch.Tensor], object], int]:
    return torch.jit.load(model, map_location=device), torch.get_num_threads()


def _measure(
    model: str, device: str, batch: int, seconds: float, threads: int = 0, attention: str = ""
) -> dict[str, float]:
    module, all_threads = _loaded(model, device)
    torch.set_num_threads(threads or all_threads)
    pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8, device=device)
    kernel = sdpa_kernel(getattr(SDPBackend, attention)) if attention else contextlib.nullcontext()
    queued = QUEUED_PASSES if device == "cuda" else 1

    def run() -> None:
        for _ in range(queued):
            module(pixels)
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode(), torch.jit.optimized_execution(False), kernel:
        run()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        times, elapsed = repeated(run, seconds)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    images = times * queued * batch
    return {"images_per_second": images / elapsed, "faults_per_image": faults / images}


def best_batch(bare: Ask, batches: Sequence[int], seconds: float) -> int:
    """The batch size with the most images per second, by the better of two short rounds each, in turns."""
    rates = [(bare(batch=batch, seconds=seconds)["images_per_second"], batch) for batch in (*batches, *batches)]
    return max(rates)[1]


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


def repeated(run: Callable[[], object], seconds: float) -> tuple[int, float]:
    """How often it ran, twice at least, and in what time."""
    began, times = time.perf_counter(), 0
    while times < 2 or time.perf_counter() - began < seconds:
        run()
        times += 1
    return times, time.perf_counter() - began
