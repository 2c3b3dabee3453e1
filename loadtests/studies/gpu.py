"""How much of a GPU the model uses, bare and served, and where the rest of the time goes.

    python -m loadtests.studies.gpu [--generators 8] [--rounds 3] [--output loadtests/results/gpu.md]

Measures the chip's matrix peak (one large product); the bare TorchScript model in precision × layout × attention at the
shipped batch size, then the best of them at other batch sizes; and the embedded Triton with CUDA at saturation, over gRPC
with distinct pixels from several client processes, with Triton's own counters. Exit code 1 when the bare model stays under
50 % of the matrix peak at its best batch, or the served one under 80 % of the bare one, or when there is no GPU; 2 for
wrong usage. `--device cpu` goes the same way on a CPU, to try the script.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path

from deepfake_deploy.embedded.installation import cuda_device_count
from deepfake_deploy.export import Precision
from deepfake_deploy.export.torchscript import best_precision

from loadtests.capacity.resources import cores
from loadtests.studies.model_speed.bare import bare_model
from loadtests.studies.model_speed.command import add_model_options, measure_and_write
from loadtests.studies.model_speed.figures import Figure
from loadtests.studies.model_speed.matrix_peak import matrix_peak
from loadtests.studies.model_speed.report import circumstances, markdown_table
from loadtests.studies.model_speed.repositories import (
    Settings,
    configuration_path,
    read_configuration,
    write_repository,
)
from loadtests.studies.model_speed.served import ServedRun, serve_saturated
from loadtests.studies.model_speed.variants import Layout, Models, Variant, open_models

FLOP_PER_IMAGE = 35.0e9  # SigLIP base, patch 16, 224 × 224
BARE_SHARE, SERVED_SHARE = 0.5, 0.8
LAYOUTS: tuple[Layout, ...] = ("as exported", "contiguous", "channels_last weights", "strided residual")
_ANSWER_SECONDS = 300.0


@dataclass
class BareRow:
    variant: Variant
    kernel: str | None
    """Of scaled_dot_product_attention; None leaves the choice to PyTorch."""
    batch: int
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return Figure(tuple(self.rates)).median


def main() -> None:
    options = _options()
    if options.device == "cuda" and not cuda_device_count():
        print("gpu: no CUDA device here; loadtests/tuning.py and ceiling.py measure a CPU", file=sys.stderr)
        sys.exit(1)
    measure_and_write("gpu", options, _measure)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(default: %(default)s)")
    parser.add_argument("--generators", type=int, default=max(1, min(8, cores() // 2)), help="client processes")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a bare round (default: %(default)s)")
    parser.add_argument("--served-seconds", type=float, default=20.0, help="of a served round (default: %(default)s)")
    parser.add_argument("--batch", type=int, action="append", help="of the bare model; may be repeated")
    parser.add_argument("--matrix-size", type=int, default=8192, help="of the product (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/gpu.md"))
    options = parser.parse_args()
    if min(options.rounds, options.generators, options.matrix_size, *(options.batch or [1])) < 1:
        parser.error("--rounds, --generators, --batch and --matrix-size must be at least 1")
    if min(options.seconds, options.served_seconds) <= 0:
        parser.error("--seconds and --served-seconds must be above 0")
    return options


def _measure(options: argparse.Namespace, folder: Path) -> tuple[list[str], list[str]]:
    gpu = options.device == "cuda"
    shipped = read_configuration(configuration_path(options.repository, gpu=gpu)).max_batch_size
    precisions = (Precision.FP16, Precision.BF16) if gpu else (Precision.BF16,)
    with matrix_peak(options.device) as worker:
        question = {"size": options.matrix_size, "seconds": options.seconds}
        peaks = {
            each: worker.ask(_ANSWER_SECONDS, dtype=str(each.dtype).partition(".")[2], **question)["flops_per_second"]
            for each in precisions
        }
    with open_models(options.model, options.revision, options.repository, folder) as models:
        rows = _rivals(models, options, precisions, shipped)
        best = max(rows, key=lambda row: row.rate)
        rows += _other_batches(models, options, best)
        best = max(rows, key=lambda row: row.rate)
        precision = best_precision() if gpu else Precision.BF16
        target = write_repository(
            options.repository, folder / "repository", models.write(Variant(precision)), Settings(), gpu=gpu
        )
        models.release()
        with serve_saturated(target, shipped, generators=options.generators) as served:
            runs = [served.measure(options.served_seconds) for _ in range(options.rounds)]
    missed = judge(best, runs, peaks[best.variant.precision])
    head = circumstances(f"-m loadtests.studies.gpu --device {options.device} --rounds {options.rounds}", options.model)
    return report(head, rows, best, runs, peaks, options.generators, missed), missed


def _rivals(
    models: Models, options: argparse.Namespace, precisions: tuple[Precision, ...], batch: int
) -> list[BareRow]:
    """Precision × layout × attention at the shipped batch size."""
    kernels = ("flash", "efficient", "cudnn", "math") if options.device == "cuda" else ("flash", "math")
    rows = [
        BareRow(Variant(precision, layout), kernel, batch)
        for precision, layout, kernel in itertools.product(precisions, LAYOUTS, (None, *kernels))
    ]
    rows += [BareRow(Variant(precision, attention="eager"), None, batch) for precision in precisions]
    _run(models, options, rows)
    return rows


def _other_batches(models: Models, options: argparse.Namespace, best: BareRow) -> list[BareRow]:
    sizes = options.batch or [1, 2, 4, 8, 16, 32, 64, 128, 256]
    rows = [BareRow(best.variant, best.kernel, size) for size in sizes if size != best.batch]
    _run(models, options, rows)
    return rows


def _run(models: Models, options: argparse.Namespace, rows: list[BareRow]) -> None:
    """One process at a time, so that the chip's memory holds one model; its rows in turns."""
    for variant in dict.fromkeys(row.variant for row in rows):
        with bare_model(models.write(variant), options.device) as worker:
            for _, row in itertools.product(range(options.rounds), [row for row in rows if row.variant == variant]):
                answer = worker.ask(_ANSWER_SECONDS, batch=row.batch, seconds=options.seconds, attention=row.kernel)
                row.rates.append(answer["images_per_second"])


def judge(best: BareRow, runs: list[ServedRun], peak: float) -> list[str]:
    """What was promised and not kept; medians count."""
    missed = []
    if (share := best.rate * FLOP_PER_IMAGE / peak) < BARE_SHARE:
        missed.append(f"the bare model uses {share:.0%} of the measured matrix peak, under {BARE_SHARE:.0%}")
    served = Figure(tuple(run.images_per_second for run in runs)).median
    if (share := served / best.rate) < SERVED_SHARE:
        missed.append(f"the served model does {share:.0%} of the bare one, under {SERVED_SHARE:.0%}")
    return missed


def report(
    head: list[str],
    rows: list[BareRow],
    best: BareRow,
    runs: list[ServedRun],
    peaks: dict[Precision, float],
    generators: int,
    missed: list[str],
) -> list[str]:
    """The Markdown page."""
    bare = [
        [
            row.variant.precision.value,
            row.variant.layout,
            "eager" if row.variant.attention == "eager" else row.kernel or "PyTorch's choice",
            str(row.batch),
            str(Figure(tuple(row.rates))),
            f"{row.rate * FLOP_PER_IMAGE / peaks[row.variant.precision]:.0%}",
        ]
        for row in rows
    ]
    served = Figure(tuple(run.images_per_second for run in runs))
    mean = {
        name: sum(getattr(run, name) for run in runs) / len(runs)
        for name in ("batch", "queue_ms", "compute_ms", "busy", "generators_cores", "memory_mib")
    }
    inside = mean["batch"] / mean["compute_ms"] * 1000
    return [
        "# How much of the chip the model uses",
        "",
        *head,
        "",
        "Matrix peak, measured: "
        + ", ".join(f"{precision.value} {peak / 1e12:.2f} TFLOP/s" for precision, peak in peaks.items())
        + f". {FLOP_PER_IMAGE / 1e9:.1f} GFLOP an image. Images per second, median of the rounds (lowest–highest).",
        "",
        "## The bare TorchScript model",
        "",
        *markdown_table(["precision", "layout", "attention", "batch", "images/s", "of the peak"], bare, words=3),
        "",
        "## Served by the embedded Triton, over gRPC",
        "",
        f"{served} images/s from {generators} client processes, {served.median / best.rate:.0%} of the best bare row.",
        "",
        "Where the time goes, from Triton's counters:",
        "",
        f"- Mean batch {mean['batch']:.1f}; a request waits {mean['queue_ms']:.1f} ms and computes {mean['compute_ms']:.1f} ms.",
        f"- The backend has a batch for {mean['busy']:.0%} of the time, and does {inside:.0f} images/s while it has one "
        f"({inside / best.rate:.0%} of the best bare row): copies and the model. The rest is between the batches.",
        f"- The client processes use {mean['generators_cores']:.1f} cores; the server and its processes {mean['memory_mib']:.0f} MiB "
        "of the host's memory.",
        "",
        f"Missed: {'; '.join(missed)}." if missed else "Kept: 50 % of the peak bare, 80 % of that served.",
    ]


if __name__ == "__main__":
    main()
