"""A measuring process with an environment of its own. Questions and answers are lines of JSON.

    python -m loadtests.studies.worker bare MODEL.PT DEVICE            the TorchScript model, nothing around it
    python -m loadtests.studies.worker card MODEL REVISION LABELS.TXT  the model card's code: transformers, fp32, one by one
    python -m loadtests.studies.worker matrix DEVICE                   one large product: what the chip does at most

A process, because the allocator and OpenMP read their settings from the environment when they start.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 300.0
_ANSWER_SECONDS = 600.0
_IMAGES = 16
# Passes that are queued on a GPU before it is waited for, so that it never waits for Python.
_QUEUED_PASSES = 8

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Worker:
    """The process, as a context manager; ready once it has loaded its model.

    Args:
        arguments: as above.
        environment: over this process's own; None takes a variable away.
    """

    def __init__(self, *arguments: str, environment: Mapping[str, str | None] | None = None) -> None:
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__, with the process
        self._name = f"{arguments[0]} worker"
        self._process = subprocess.Popen(  # noqa: S603 - this module
            [sys.executable, "-m", "loadtests.studies.worker", *arguments],
            env={name: value for name, value in variables.items() if value is not None},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer to one question."""
        assert self._process.stdin is not None  # noqa: S101 - stdin=PIPE above
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
        except OSError:
            raise self._failure("ended") from None
        return self._receive(_ANSWER_SECONDS)

    def __enter__(self) -> Worker:
        try:
            self._receive(_START_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _receive(self, timeout_seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - stdout=PIPE above
        if not select.select([self._process.stdout], [], [], timeout_seconds)[0]:
            raise self._failure(f"did not answer within {timeout_seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._failure("ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self, how: str) -> ChildProcessError:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode("utf-8", "replace").split("\n") if line.strip()]
        return ChildProcessError(f"the {self._name} {how}: {lines[-1] if lines else 'it said nothing'}")


def bare_model(model: Path, device: str = "cpu", environment: Mapping[str, str | None] | None = None) -> Worker:
    """A worker with a model.pt, in the environment that the embedded Triton gives its backend.

    The answer to {"batch": 8, "seconds": 5, "threads": 2, "attention": "math"} has `images_per_second` over at least two
    forward passes, after one that does not count, and `faults_per_image`, page faults.
    """
    from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT

    return Worker("bare", str(model), device, environment={**TORCH_ENVIRONMENT, **(environment or {})})


def card_code(model: str, revision: str | None, labels: Path) -> Worker:
    """A worker with the card's code; its environment is the caller's, since the card sets none.

    The answer to {"seconds": 5} has `images_per_second`, that to {"paths": [...]} the `probabilities` of image files.
    """
    return Worker("card", model, revision or "", str(labels))


def matrix_peak(device: str) -> Worker:
    """A worker that multiplies: {"dtype": "bfloat16", "size": 8192, "seconds": 3} → `flops_per_second`."""
    from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT

    return Worker("matrix", device, environment=TORCH_ENVIRONMENT)


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
    from deepfake_evaluation.card import open_reference
    from PIL import Image

    from loadtests.studies.serving import Silent
    from loadtests.traffic.pool import PixelPool

    names = Path(labels).read_text(encoding="utf-8").splitlines()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_reference(model, revision or None, names, Silent()) as reference,
    ):
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


def main() -> None:
    """The other side: says that it is ready, then answers until its input ends."""
    kind, *arguments = sys.argv[1:]
    with {"bare": _bare, "card": _card, "matrix": _matrix}[kind](*arguments) as answer:
        print("{}", flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
