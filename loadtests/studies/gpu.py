"""How much of a GPU the model uses, bare and served, and where the rest of the time goes.

    python -m loadtests.studies.gpu [--generators 8] [--rounds 3]

Measures the chip's matrix peak (one large product); the bare TorchScript model in each precision and attention kernel at
the shipped batch size, then the best of them at other batch sizes; and the embedded Triton at saturation, over gRPC with
distinct pixels from several client processes. Exit code 1 when the bare model stays under 50 % of the matrix peak at its
best batch, or the served one under 80 % of the bare one, or when there is no GPU. `--device cpu` tries the script.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from deepfake_deploy.export import Precision

from loadtests.capacity.resources import cores
from loadtests.studies.serving import ServedRun, configuration_path, export, read_configuration, saturating, serve
from loadtests.studies.table import (
    Result,
    circumstances,
    figure,
    markdown_table,
    run_study,
    seconds,
    shown,
    study_parser,
    tell,
)
from loadtests.studies.worker import bare_model, matrix_peak

FLOP_PER_IMAGE = 35.0e9  # SigLIP base, patch 16, 224 × 224
BARE_SHARE, SERVED_SHARE = 0.5, 0.8
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
KERNELS = {"cuda": (None, "flash", "efficient", "cudnn", "math"), "cpu": (None, "flash", "math")}


@dataclass
class Row:
    """The bare model in one setting."""

    precision: str
    kernel: str | None
    """Of scaled_dot_product_attention; None leaves the choice to PyTorch."""
    batch: int
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return median(self.rates)


def main() -> None:
    parser = study_parser(__doc__, rounds=3)
    add = parser.add_argument
    add("--device", choices=["cuda", "cpu"], default="cuda", help="(default: %(default)s)")
    add("--generators", type=int, default=max(1, min(8, cores() // 2)), help="client processes (default: %(default)s)")
    add("--seconds", type=seconds, default=3.0, help="of a bare round (default: %(default)s)")
    add("--served-seconds", type=seconds, default=20.0, help="of a served round (default: %(default)s)")
    add("--matrix-size", type=int, default=8192, help="of the product (default: %(default)s)")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu: no CUDA device here; `make tune` and `make ceiling` measure a CPU", file=sys.stderr)
        sys.exit(1)
    run_study("gpu", options, measure, page)


def measure(options: argparse.Namespace, folder: Path) -> Result:
    gpu = options.device == "cuda"
    precisions = (Precision.FP16, Precision.BF16) if gpu else (Precision.BF16,)
    with matrix_peak(options.device) as worker:
        question = {"size": options.matrix_size, "seconds": options.seconds}
        peaks = {
            each.value: worker.ask(dtype=str(each.dtype).partition(".")[2], **question)["flops_per_second"]
            for each in precisions
        }
    repositories = {each.value: folder / each.value for each in precisions}
    models = {
        each.value: export(options.model, options.revision, each, options.repository, repositories[each.value])[0]
        for each in precisions
    }
    shipped = read_configuration(configuration_path(options.repository, gpu=gpu)).max_batch_size
    rows = [Row(precision, kernel, shipped) for precision in models for kernel in KERNELS[options.device]]
    _run(models, options, rows)
    best = max(rows, key=lambda row: row.rate)
    others = [Row(best.precision, best.kernel, size) for size in BATCHES if size != shipped]
    _run(models, options, others)
    best = max([*rows, *others], key=lambda row: row.rate)
    callers = saturating(shipped)
    with serve(repositories[precisions[0].value], callers, generators=options.generators) as served:
        runs = [served.measure(options.served_seconds) for _ in range(options.rounds)]
    return {
        "circumstances": circumstances("gpu", options.model),
        "peaks": peaks,
        "bare": [_bare_row(row, peaks) for row in (*rows, *others)],
        "best": best.rate,
        "served": figure([run.images_per_second for run in runs]),
        "generators": options.generators,
        "mean": {name: fmean(getattr(run, name) for run in runs) for name in ServedRun.__dataclass_fields__},
        "missed": judge(best, runs, peaks[best.precision]),
    }


def _run(models: dict[str, Path], options: argparse.Namespace, rows: list[Row]) -> None:
    """One process at a time, so that the chip's memory holds one model; its rows in turns."""
    for precision in dict.fromkeys(row.precision for row in rows):
        with bare_model(models[precision], options.device) as worker:
            for number in range(options.rounds):
                tell(f"bare model in {precision}, round {number + 1} of {options.rounds}")
                for row in rows:
                    if row.precision == precision:
                        answer = worker.ask(batch=row.batch, seconds=options.seconds, attention=row.kernel)
                        row.rates.append(answer["images_per_second"])


def _bare_row(row: Row, peaks: dict[str, float]) -> dict[str, Any]:
    return {
        "precision": row.precision,
        "attention": row.kernel or "PyTorch's choice",
        "batch": row.batch,
        "images_per_second": figure(row.rates),
        "of_the_peak": row.rate * FLOP_PER_IMAGE / peaks[row.precision],
    }


def judge(best: Row, runs: list[ServedRun], peak: float) -> list[str]:
    """What was promised and not kept; medians count."""
    missed = []
    if (share := best.rate * FLOP_PER_IMAGE / peak) < BARE_SHARE:
        missed.append(f"the bare model uses {share:.0%} of the measured matrix peak, under {BARE_SHARE:.0%}")
    if (share := median(run.images_per_second for run in runs) / best.rate) < SERVED_SHARE:
        missed.append(f"the served model does {share:.0%} of the bare one, under {SERVED_SHARE:.0%}")
    return missed


def page(result: Result) -> list[str]:
    rows = [
        [
            row["precision"],
            row["attention"],
            str(row["batch"]),
            shown(row["images_per_second"]),
            f"{row['of_the_peak']:.0%}",
        ]
        for row in result["bare"]
    ]
    peaks = ", ".join(f"{precision} {peak / 1e12:.2f} TFLOP/s" for precision, peak in result["peaks"].items())
    mean, best = result["mean"], result["best"]
    inside = mean["batch"] / mean["compute_ms"] * 1000
    return [
        "# How much of the chip the model uses",
        "",
        *result["circumstances"],
        "",
        f"Matrix peak, measured: {peaks}. {FLOP_PER_IMAGE / 1e9:.1f} GFLOP an image. Images per second, median of the rounds "
        "(lowest–highest).",
        "",
        "## The bare TorchScript model",
        "",
        *markdown_table(["precision", "attention", "batch", "images/s", "of the peak"], rows, words=2),
        "",
        "## Served by the embedded Triton, over gRPC",
        "",
        f"{shown(result['served'])} images/s from {result['generators']} client processes, "
        f"{result['served']['median'] / best:.0%} of the best bare row.",
        "",
        "Where the time goes, from Triton's counters:",
        "",
        f"- Mean batch {mean['batch']:.1f}; a request waits {mean['queue_ms']:.1f} ms and computes {mean['compute_ms']:.1f} ms.",
        f"- The backend has a batch for {mean['busy']:.0%} of the time, and does {inside:.0f} images/s while it has one "
        f"({inside / best:.0%} of the best bare row): copies and the model. The rest is between the batches.",
        f"- The client processes use {mean['generator_cores']:.1f} cores; the server's processes {mean['memory_mib']:.0f} MiB of "
        "the host's memory.",
        "",
        f"Missed: {'; '.join(result['missed'])}."
        if result["missed"]
        else "Kept: 50 % of the peak bare, 80 % of that served.",
    ]


if __name__ == "__main__":
    main()
