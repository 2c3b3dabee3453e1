"""How much of a GPU the model uses, bare and served, and where the rest of the time goes.

    python -m loadtests.studies.gpu [--generators 8] [--rounds 3]

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
from loadtests.studies.serving import export, saturating, serve
from loadtests.studies.worker import QUEUED_PASSES, bare_model, best_batch, repeated

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
    precision = Precision.FP16 if gpu else Precision.BF16
    target = folder / "repository"
    model, _ = export(options.model, precision, options.repository, target)
    callers = saturating(target, gpu=gpu)
    with (
        bare_model(model, options.device) as bare,
        serve(target, callers, generators=options.generators) as served,
    ):
        batch = best_batch(bare, BATCHES, options.seconds / 4)
        bare_run, served_run = partial(bare, batch=batch, seconds=options.seconds), partial(served, options.seconds)
        found = table.in_turns({"bare": bare_run, "served": served_run}, options.rounds)
    result = {
        "circumstances": table.circumstances("gpu", options.model),
        "precision": precision.value,
        "peak": _matrix_peak(options.device, precision.dtype),
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

    def run() -> None:
        for _ in range(QUEUED_PASSES):
            torch.mm(left, right, out=product)
        if device == "cuda":
            torch.cuda.synchronize()

    run()
    times, elapsed = repeated(run, 3.0)
    return 2.0 * MATRIX_SIZE**3 * times * QUEUED_PASSES / elapsed


def judge(result: table.Result) -> list[str]:
    """What was promised and not kept; medians count."""
    missed = []
    of_peak, of_bare = _shares(result)
    if of_peak < BARE_SHARE:
        missed.append(f"the bare model uses {of_peak:.0%} of the measured matrix peak, under {BARE_SHARE:.0%}")
    if of_bare < SERVED_SHARE:
        missed.append(f"the served model does {of_bare:.0%} of the bare one, under {SERVED_SHARE:.0%}")
    return missed


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
    return table.page_of(
        "How much of the chip the model uses", result, table.markdown_table(["what", "measured"], facts)
    )


if __name__ == "__main__":
    main()
