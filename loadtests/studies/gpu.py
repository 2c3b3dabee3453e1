"""How much of a GPU the model uses, bare and served, and where the rest of the time goes.

    python -m loadtests.studies.gpu [--generators 8] [--rounds 3]

Measures the chip's matrix peak (one large product); the bare TorchScript model at the batch size that is its best; and
the embedded Triton at saturation, over gRPC with distinct pixels from several client processes. Exit code 1 when the bare
model stays under 50 % of the matrix peak, or the served one under 80 % of the bare one, or when there is no GPU.
`--device cpu` tries the script.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean

import torch
from deepfake_deploy.export import Precision

from loadtests.capacity.resources import cores
from loadtests.studies import table
from loadtests.studies.ceiling import Contest
from loadtests.studies.serving import ServedRun, export, max_batch_size, saturating, serve
from loadtests.studies.worker import bare_model, matrix_peak

FLOP_PER_IMAGE = 35.0e9  # SigLIP base, patch 16, 224 × 224
BARE_SHARE, SERVED_SHARE = 0.5, 0.8
BATCHES = (8, 16, 32, 64, 128, 256)


def main() -> None:
    parser = table.study_parser(__doc__, rounds=3)
    add = parser.add_argument
    add("--device", choices=["cuda", "cpu"], default="cuda", help="(default: %(default)s)")
    add("--generators", type=int, default=max(1, min(8, cores() // 2)), help="client processes (default: %(default)s)")
    add("--seconds", type=table.seconds, default=20.0, help="of a round (default: %(default)s)")
    add("--matrix-size", type=int, default=8192, help="of the product (default: %(default)s)")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu: no CUDA device here; `make tune` and `make ceiling` measure a CPU", file=sys.stderr)
        sys.exit(1)
    table.run_study("gpu", options, measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    gpu = options.device == "cuda"
    precision = Precision.FP16 if gpu else Precision.BF16
    with matrix_peak(options.device) as worker:
        dtype = str(precision.dtype).partition(".")[2]
        peak = worker.ask(dtype=dtype, size=options.matrix_size, seconds=3.0)["flops_per_second"]
    target = folder / "repository"
    model, _ = export(options.model, options.revision, precision, options.repository, target)
    callers = saturating(max_batch_size(target, gpu=gpu))
    with (
        bare_model(model, options.device) as bare,
        serve(target, callers, generators=options.generators) as served,
    ):
        contest = Contest(bare, served)
        contest.find_best_batch(BATCHES, options.seconds / 4)
        for number in range(options.rounds):
            table.tell(f"Round {number + 1} of {options.rounds}")
            contest.round(options.seconds)
    result = {
        "circumstances": table.circumstances("gpu", options.model),
        "precision": precision.value,
        "peak": peak,
        "bare": table.figure(contest.bare_rounds),
        "bare_batch": contest.batch,
        "served": table.figure([run.images_per_second for run in contest.served_rounds]),
        "generators": options.generators,
        "mean": {name: fmean(getattr(run, name) for run in contest.served_rounds) for name in ServedRun.__slots__},
    }
    return result | {"missed": judge(result)}


def judge(result: table.Result) -> list[str]:
    """What was promised and not kept; medians count."""
    missed, bare = [], result["bare"]["median"]
    if (share := bare * FLOP_PER_IMAGE / result["peak"]) < BARE_SHARE:
        missed.append(f"the bare model uses {share:.0%} of the measured matrix peak, under {BARE_SHARE:.0%}")
    if (share := result["served"]["median"] / bare) < SERVED_SHARE:
        missed.append(f"the served model does {share:.0%} of the bare one, under {SERVED_SHARE:.0%}")
    return missed


def page(result: table.Result) -> list[str]:
    mean, bare, peak = result["mean"], result["bare"]["median"], result["peak"]
    inside = mean["batch"] / mean["compute_ms"] * 1000
    facts = [
        f"- Matrix peak in {result['precision']}, measured: {peak / 1e12:.2f} TFLOP/s; an image takes "
        f"{FLOP_PER_IMAGE / 1e9:.1f} GFLOP.",
        f"- Bare model: {table.shown(result['bare'])} images/s in batches of {result['bare_batch']}, "
        f"{bare * FLOP_PER_IMAGE / peak:.0%} of the peak.",
        f"- Served: {table.shown(result['served'])} images/s from {result['generators']} client processes, "
        f"{result['served']['median'] / bare:.0%} of the bare model.",
        f"- Mean batch {mean['batch']:.1f}; a request waits {mean['queue_ms']:.1f} ms and computes {mean['compute_ms']:.1f} ms.",
        f"- The backend has a batch for {mean['busy']:.0%} of the time, and does {inside:.0f} images/s while it has one. The "
        "rest is between the batches.",
        f"- The client processes use {mean['generator_cores']:.1f} cores; the server {mean['memory_mib']:.0f} MiB of the host.",
    ]
    kept = "Kept: 50 % of the peak bare, 80 % of that served."
    return table.page_of("How much of the chip the model uses", result, facts, kept=kept)


if __name__ == "__main__":
    main()
