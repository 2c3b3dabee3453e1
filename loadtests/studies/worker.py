"""A measuring process with an environment of its own: the bare model, the model card's code, or one matrix product.

A process, because the allocator and OpenMP read their settings from the environment when they start.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any
from unittest import mock

from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT

_ANSWER_SECONDS = 600.0
_IMAGES = 16
# Passes that are queued on a GPU before it is waited for, so that it never waits for Python.
_QUEUED_PASSES = 8

Answer = Callable[[dict[str, Any]], dict[str, Any]]
_stack = contextlib.ExitStack()
_answers: list[Answer] = []  # in the process, the one that was opened


class Worker:
    """The process, as a context manager; ready once it has loaded its model.

    Args:
        task: opens what answers, in the process.
        environment: over this process's own; None takes a variable away.

    Raises:
        ChildProcessError: it failed, ended, or did not answer in time.
    """

    def __init__(
        self, task: Callable[..., Any], *arguments: str, environment: Mapping[str, str | None] | None = None
    ) -> None:
        self._task, self._arguments, self._environment = task, arguments, environment or {}
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN))

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer to one question."""
        answer: dict[str, Any] = self._run(_answer, question)
        return answer

    def __enter__(self) -> Worker:
        with mock.patch.dict(os.environ):
            for name, value in self._environment.items():
                os.environ.pop(name, None)
                os.environ.update({name: value} if value is not None else {})
            try:
                self._run(_open, self._task, self._arguments)
            except BaseException:
                self._process.shutdown()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            self._run(_close)
        self._process.shutdown()

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        name = self._task.__name__.strip("_")
        try:
            return self._process.submit(function, *arguments).result(_ANSWER_SECONDS)
        except FutureTimeoutError:
            raise ChildProcessError(f"the {name} worker did not answer within {_ANSWER_SECONDS:.0f} s") from None
        except Exception as error:  # whatever torch and transformers raise
            raise ChildProcessError(f"the {name} worker failed: {type(error).__name__}: {error}") from None


def _open(task: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    _answers.append(_stack.enter_context(task(*arguments)))


def _close() -> None:
    _stack.close()


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    return _answers[0](question)


def bare_model(model: Path, device: str = "cpu", environment: Mapping[str, str | None] | None = None) -> Worker:
    """A worker with a model.pt, in the environment that the embedded Triton gives its backend.

    The answer to {"batch": 8, "seconds": 5, "threads": 2, "attention": "math"} has `images_per_second` over at least two
    forward passes, after one that does not count, and `faults_per_image`, page faults.
    """
    return Worker(_bare, str(model), device, environment={**TORCH_ENVIRONMENT, **(environment or {})})


def card_code(model: str, revision: str | None, labels: Path) -> Worker:
    """A worker with the card's code; its environment is the caller's, since the card sets none.

    The answer to {"seconds": 5} has `images_per_second`, that to {"paths": [...]} the `probabilities` of image files.
    """
    return Worker(_card, model, revision or "", str(labels))


def matrix_peak(device: str) -> Worker:
    """A worker that multiplies: {"dtype": "bfloat16", "size": 8192, "seconds": 3} → `flops_per_second`."""
    return Worker(_matrix, device, environment=TORCH_ENVIRONMENT)


@contextlib.contextmanager
def _bare(model: str, device: str) -> Iterator[Answer]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }
    module = torch.jit.load(model, map_location=device)
    threads = torch.get_num_threads()
    queued = _QUEUED_PASSES if device == "cuda" else 1

    def run(pixels: torch.Tensor) -> None:
        for _ in range(queued):
            module(pixels)
        if device == "cuda":
            torch.cuda.synchronize()

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(question.get("threads") or threads)
        batch, kernel = int(question["batch"]), question.get("attention")
        pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8, device=device)
        attention = sdpa_kernel(kernels[kernel]) if kernel else contextlib.nullcontext()
        with torch.inference_mode(), torch.jit.optimized_execution(False), attention:
            run(pixels)
            faults = _page_faults()
            passes, elapsed = _repeated(lambda: run(pixels), question["seconds"], 2)
        images = passes * queued * batch
        return {"images_per_second": images / elapsed, "faults_per_image": (_page_faults() - faults) / images}

    yield answer


@contextlib.contextmanager
def _card(model: str, revision: str, labels: str) -> Iterator[Answer]:
    """Its own images are PNG files of 224 × 224: reading and resizing them costs next to nothing."""
    from deepfake_cli.evaluate import load_reference
    from PIL import Image

    from loadtests.studies.serving import Silent
    from loadtests.traffic.pool import PixelPool

    names = Path(labels).read_text(encoding="utf-8").splitlines()
    reference = load_reference(model, revision or None, names, Silent())
    with tempfile.TemporaryDirectory() as folder:
        pool, files = PixelPool(), [Path(folder) / f"{number}.png" for number in range(_IMAGES)]
        for number, file in enumerate(files):
            Image.fromarray(pool.image(number)).save(file)
        turn = itertools.cycle(files)
        reference.probabilities(next(turn))

        def answer(question: dict[str, Any]) -> dict[str, Any]:
            if "paths" in question:
                return {"probabilities": [reference.probabilities(Path(path)) for path in question["paths"]]}
            images, elapsed = _repeated(lambda: reference.probabilities(next(turn)), question["seconds"], 2)
            return {"images_per_second": images / elapsed}

        yield answer


@contextlib.contextmanager
def _matrix(device: str) -> Iterator[Answer]:
    import torch

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        size, dtype = int(question["size"]), getattr(torch, str(question["dtype"]))
        # Normal numbers: a chip at its power limit multiplies zeros faster.
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        product = torch.empty_like(left)

        def run() -> None:
            for _ in range(_QUEUED_PASSES):
                torch.mm(left, right, out=product)
            if device == "cuda":
                torch.cuda.synchronize()

        run()
        times, elapsed = _repeated(run, question["seconds"], 1)
        return {"flops_per_second": 2.0 * size**3 * times * _QUEUED_PASSES / elapsed}

    yield answer


def _repeated(run: Callable[[], object], seconds: float, least: int) -> tuple[int, float]:
    """How often it ran, and in what time."""
    began, times = time.perf_counter(), 0
    while times < least or time.perf_counter() - began < seconds:
        run()
        times += 1
    return times, time.perf_counter() - began


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
