"""How much of a GPU the model uses, bare and served, and where the rest of the time goes.

The chip's matrix peak (one large product), the bare TorchScript model at its best batch size, and the embedded Triton at
saturation, over gRPC with distinct pixels.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from deepfake_deploy.export import Precision

from loadtests.capacity.resources import cores
from loadtests.studies import table
from loadtests.studies.ceiling import bare_and_served
from loadtests.studies.serving import exported
from loadtests.studies.worker import repeated

FLOP_PER_IMAGE = 35.0e9  # SigLIP base, patch 16, 224 × 224
BARE_SHARE, SERVED_SHARE = 0.5, 0.8
BATCHES = (8, 16, 32, 64, 128, 256)
MATRIX_SIZE = 8192


def main() -> None:
    parser = table.study_parser(__doc__, rounds=3, seconds=20.0, model=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="of the model")
    parser.add_argument("--generators", type=int, default=max(1, min(8, cores() // 2)), help="client processes")
    table.run_study("gpu", parser, measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    gpu = options.device == "cuda"
    if gpu and not torch.cuda.is_available():
        raise ValueError("no CUDA device here; `make tune` and `make ceiling` measure a CPU")
    wanted = Precision.FP16 if gpu else Precision.BF16
    with exported(options, [wanted], folder) as (_, repositories):
        sides = bare_and_served(repositories[wanted], options.device, BATCHES, options.seconds, options.generators)
        with sides as (batch, bare, served):
            found = table.in_turns({"bare": bare, "served": served}, options.rounds)
    result = {
        "circumstances": table.circumstances("gpu", options.model),
        "precision": wanted.value,
        "peak": _matrix_peak(options.device, wanted.dtype),
        **{name: table.figures(rounds) for name, rounds in found.items()},
        "bare_batch": batch,
        "generators": options.generators,
    }
    return result | {"missed": judge(result)}


def _matrix_peak(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of one product."""
    # Normal numbers: a chip at its power limit multiplies zeros faster.
    left, right = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    multiply = partial(torch.mm, left, right, out=product)
    repeated(multiply, 0.0, device)
    times, elapsed = repeated(multiply, 3.0, device)
    return 2.0 * MATRIX_SIZE**3 * times / elapsed


def judge(result: table.Result) -> list[str]:
    """What was promised and not kept; medians count."""
    of_peak, of_bare = _shares(result)
    reasons = {
        f"the bare model uses {of_peak:.0%} of the measured matrix peak, under {BARE_SHARE:.0%}": of_peak < BARE_SHARE,
        f"the served model does {of_bare:.0%} of the bare one, under {SERVED_SHARE:.0%}": of_bare < SERVED_SHARE,
    }
    return [reason for reason, holds in reasons.items() if holds]


def _shares(result: table.Result) -> tuple[float, float]:
    """The bare model's of the matrix peak, and the served one's of the bare one."""
    bare, served = (result[name]["images_per_second"]["median"] for name in ("bare", "served"))
    return bare * FLOP_PER_IMAGE / result["peak"], served / bare


def page(result: table.Result) -> list[str]:
    of_peak, of_bare = _shares(result)
    facts = [
        ["matrix peak, TFLOP/s", f"{result['peak'] / 1e12:.2f} in {result['precision']}"],
        ["bare, images/s", f"{table.shown(result['bare']['images_per_second'])} in batches of {result['bare_batch']}"],
        ["bare ÷ peak, served ÷ bare", f"{of_peak:.0%}, {of_bare:.0%}"],
        ["client processes", str(result["generators"])],
        *([f"served, {name}", table.shown(each)] for name, each in result["served"].items()),
    ]
    rows = table.markdown_table(["what", "measured"], facts)
    return table.page_of("How much of the chip the model uses", result, rows)


if __name__ == "__main__":
    main()
