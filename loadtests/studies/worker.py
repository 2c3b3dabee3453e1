"""What a served model is held against: the bare TorchScript model, in a process of its own, and the model card's code.

A process, because the allocator and OpenMP read their settings from the environment when they start.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

_QUEUED_ON_A_GPU = 8  # before it is waited for, so that it never waits for Python

#: Asked by keywords: `batch`, `seconds`, and what else differs from the usual, `threads` or the `attention`'s SDPBackend.
Ask = Callable[..., dict[str, float]]


@contextlib.contextmanager
def bare_model(model: Path, device: str = "cpu", environment: Mapping[str, str] = TORCH_ENVIRONMENT) -> Iterator[Ask]:
    """A process that has loaded a model.pt, and has `images_per_second` and `faults_per_image`, page faults.

    A measurement is at least two forward passes, after two that do not count. `environment` goes over this process's
    own; unless told otherwise, it is what the embedded Triton gives its backend.

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


@cache
def _loaded(model: str, device: str) -> tuple[Callable[[torch.Tensor], object], int]:
    return torch.jit.load(model, map_location=device), torch.get_num_threads()


def _measure(
    model: str, device: str, batch: int, seconds: float, threads: int = 0, attention: str = ""
) -> dict[str, float]:
    module, all_threads = _loaded(model, device)
    torch.set_num_threads(threads or all_threads)
    pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8, device=device)
    kernel = sdpa_kernel(getattr(SDPBackend, attention)) if attention else contextlib.nullcontext()
    forward = partial(module, pixels)
    with torch.inference_mode(), torch.jit.optimized_execution(False), kernel:
        repeated(forward, 0.0, device)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        times, elapsed = repeated(forward, seconds, device)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"images_per_second": times * batch / elapsed, "faults_per_image": faults / (times * batch)}


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
