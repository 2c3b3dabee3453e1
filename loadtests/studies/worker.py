"""A measuring process with an environment of its own: the bare model, the model card's code, or one matrix product.

A process, because the allocator and OpenMP read their settings from the environment when they start.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from unittest import mock

from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT

# Passes that are queued on a GPU before it is waited for, so that it never waits for Python.
_QUEUED_PASSES = 8

#: A question by keywords, to a dictionary of answers.
Ask = Callable[..., dict[str, Any]]


@contextlib.contextmanager
def worker(
    task: Callable[..., Ask], *arguments: str, environment: Mapping[str, str] = TORCH_ENVIRONMENT
) -> Iterator[Ask]:
    """The process, once the task has loaded what it needs there; to be asked what the task answers.

    Args:
        task: `bare_model`, `card_code` or `matrix`, with its arguments.
        environment: over this process's own; that which the embedded Triton gives its backend, unless told otherwise.

    Raises:
        ChildProcessError: it failed, or ended.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as process:

        def ask(**question: Any) -> dict[str, Any]:
            try:
                return process.submit(_answer, task, arguments, question).result()
            except Exception as error:  # whatever torch and transformers raise
                reason = f"{type(error).__name__}: {error}"
                raise ChildProcessError(f"the {task.__name__} worker failed: {reason}") from None

        with mock.patch.dict(os.environ, environment):
            ask()
        yield ask


def best_batch(bare: Ask, batches: Sequence[int], seconds: float) -> int:
    """The batch size with the most images per second, by the better of two short rounds each, in turns."""
    rates = [(bare(batch=batch, seconds=seconds)["images_per_second"], batch) for batch in (*batches, *batches)]
    return max(rates)[1]


_loaded = functools.cache(lambda task, arguments: task(*arguments))


def _answer(task: Callable[..., Ask], arguments: tuple[str, ...], question: dict[str, Any]) -> dict[str, Any]:
    """In the process, where the first, empty question loads the task."""
    ask = _loaded(task, arguments)
    return ask(**question) if question else {}


def bare_model(model: str, device: str) -> Ask:
    """A model.pt: `images_per_second` over at least two forward passes, and `faults_per_image`, page faults.

    One pass goes before that does not count. `attention` names an SDPBackend.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    module = torch.jit.load(model, map_location=device)
    all_threads, queued = torch.get_num_threads(), _QUEUED_PASSES if device == "cuda" else 1

    def ask(batch: int, seconds: float, threads: int | None = None, attention: str | None = None) -> dict[str, Any]:
        torch.set_num_threads(threads or all_threads)
        pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8, device=device)
        kernel = sdpa_kernel(getattr(SDPBackend, attention)) if attention else contextlib.nullcontext()

        def run() -> None:
            for _ in range(queued):
                module(pixels)
            if device == "cuda":
                torch.cuda.synchronize()

        with torch.inference_mode(), torch.jit.optimized_execution(False), kernel:
            run()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            passes, elapsed = _repeated(run, seconds, 2)
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        images = passes * queued * batch
        return {"images_per_second": images / elapsed, "faults_per_image": faults / images}

    return ask


def card_code(checkpoint: str) -> Ask:
    """The card's code, fp32: its `images_per_second`, or the `probabilities` of image files' bytes.

    Its own images are 224 × 224 already: resizing them costs next to nothing.
    """
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, SiglipForImageClassification

    from loadtests.traffic.pool import PixelPool

    processor = AutoImageProcessor.from_pretrained(checkpoint)
    model = SiglipForImageClassification.from_pretrained(checkpoint)

    def probabilities(image: Image.Image) -> list[float]:
        inputs = processor(images=image.convert("RGB"), return_tensors="pt")
        with torch.no_grad():
            scores: list[float] = torch.softmax(model(**inputs).logits, dim=1)[0].tolist()
        return scores

    turn = itertools.cycle([Image.fromarray(PixelPool().image(number)) for number in range(16)])
    probabilities(next(turn))

    def ask(seconds: float = 0.0, files: Sequence[bytes] = ()) -> dict[str, Any]:
        if files:
            return {"probabilities": [probabilities(Image.open(io.BytesIO(file))) for file in files]}
        images, elapsed = _repeated(lambda: probabilities(next(turn)), seconds, 2)
        return {"images_per_second": images / elapsed}

    return ask


def matrix(device: str) -> Ask:
    """One product of two square matrices: `flops_per_second`."""
    import torch

    def ask(size: int, dtype: str, seconds: float) -> dict[str, Any]:
        # Normal numbers: a chip at its power limit multiplies zeros faster.
        left, right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
        product = torch.empty_like(left)

        def run() -> None:
            for _ in range(_QUEUED_PASSES):
                torch.mm(left, right, out=product)
            if device == "cuda":
                torch.cuda.synchronize()

        run()
        times, elapsed = _repeated(run, seconds, 1)
        return {"flops_per_second": 2.0 * size**3 * times * _QUEUED_PASSES / elapsed}

    return ask


def _repeated(run: Callable[[], object], seconds: float, least: int) -> tuple[int, float]:
    """How often it ran, and in what time."""
    began, times = time.perf_counter(), 0
    while times < least or time.perf_counter() - began < seconds:
        run()
        times += 1
    return times, time.perf_counter() - began
