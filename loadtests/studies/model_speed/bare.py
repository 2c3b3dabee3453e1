"""The bare TorchScript model in a process of its own, with nothing around it: the ceiling of what can be served.

    python -m model_speed.bare MODEL.PT DEVICE

The answer to {"batch": 8, "seconds": 5, "threads": 2, "attention": "flash"} tells images per second over at least two
forward passes, after one that does not count; page faults per image; and MiB of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT
from torch.nn.attention import SDPBackend, sdpa_kernel

from .worker import Worker, answer_questions

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
# Passes that are queued on a GPU before it is waited for, so that it never waits for Python.
_QUEUED_PASSES = 8


@contextlib.contextmanager
def bare_model(
    model: Path, device: str = "cpu", *, keep_memory: bool = True, environment: dict[str, str] | None = None
) -> Iterator[Worker]:
    """The process.

    Args:
        model: a model.pt.
        device: "cpu" or "cuda".
        keep_memory: as the embedded Triton's backend sets the allocator.
        environment: over that which the embedded Triton gives its backend.
    """
    variables = {
        name: value for name, value in TORCH_ENVIRONMENT.items() if keep_memory or not name.startswith("MALLOC_")
    }
    with Worker("model_speed.bare", [str(model), device], {**variables, **(environment or {})}) as worker:
        yield worker


class _Bare:
    def __init__(self, model: Path, device: torch.device) -> None:
        self._device = device
        self._threads = torch.get_num_threads()
        self._module = torch.jit.load(str(model), map_location=device)

    def answer(self, question: dict[str, Any]) -> dict[str, float]:
        torch.set_num_threads(question.get("threads") or self._threads)
        batch, seconds = int(question["batch"]), float(question["seconds"])
        pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8, device=self._device)
        queued = _QUEUED_PASSES if self._device.type == "cuda" else 1
        with torch.inference_mode(), torch.jit.optimized_execution(False), _kernel(question.get("attention")):
            self._run(pixels, queued)
            faults, began, passes = _page_faults(), time.perf_counter(), 0
            while passes < 2 * queued or time.perf_counter() - began < seconds:
                self._run(pixels, queued)
                passes += queued
            elapsed = time.perf_counter() - began
        images = passes * batch
        return {
            "images_per_second": images / elapsed,
            "faults_per_image": (_page_faults() - faults) / images,
            "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def _run(self, pixels: torch.Tensor, passes: int) -> None:
        for _ in range(passes):
            self._module(pixels)
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def _kernel(name: str | None) -> AbstractContextManager[None]:
    return sdpa_kernel(KERNELS[name]) if name else contextlib.nullcontext()


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("device", choices=["cpu", "cuda"])
    options = parser.parse_args()
    answer_questions(_Bare(options.model, torch.device(options.device)).answer)


if __name__ == "__main__":
    main()
