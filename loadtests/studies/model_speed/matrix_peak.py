"""What the chip's matrix units do at most: one large product, in a process of its own.

    python -m model_speed.matrix_peak DEVICE

The answer to {"dtype": "bfloat16", "size": 8192, "seconds": 3} tells FLOP per second.
"""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager
from typing import Any

import torch
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT

from .worker import Worker, answer_questions

_QUEUED = 10


def matrix_peak(device: str) -> AbstractContextManager[Worker]:
    """The process, on "cpu" or "cuda"."""
    return Worker("model_speed.matrix_peak", [device], TORCH_ENVIRONMENT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", choices=["cpu", "cuda"])
    device = torch.device(parser.parse_args().device)

    def answer(question: dict[str, Any]) -> dict[str, float]:
        size, dtype = int(question["size"]), getattr(torch, str(question["dtype"]))
        # Normal numbers: a chip at its power limit multiplies zeros faster.
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        product = torch.empty_like(left)

        def run(times: int) -> None:
            for _ in range(times):
                torch.mm(left, right, out=product)
            if device.type == "cuda":
                torch.cuda.synchronize()

        run(2)
        began, times = time.perf_counter(), 0
        while times == 0 or time.perf_counter() - began < question["seconds"]:
            run(_QUEUED)
            times += _QUEUED
        return {"flops_per_second": 2.0 * size**3 * times / (time.perf_counter() - began)}

    answer_questions(answer)


if __name__ == "__main__":
    main()
