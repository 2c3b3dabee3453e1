"""The command: options in, a page out."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from capacity_search.resources import cores
from deepfake_deploy.embedded import EmbeddedTritonError
from deepfake_deploy.embedded.accelerator import cuda_device_count
from deepfake_deploy.export import STAND_IN, ExportError
from deepfake_deploy.export.precision import best_precision
from model_speed.report import circumstances, write_report
from model_speed.repositories import configuration_path, read_configuration
from model_speed.variants import Variant, open_models

from .rows import bare_rows, served_rows
from .sweep import sweep_bare, sweep_served
from .table import page


def main(description: str | None = None) -> None:
    """Measures and writes the page; ends with 0, 1 when something failed, 2 for wrong usage."""
    options = _options(description)
    if cuda_device_count():
        print(
            "tuning: this is the sweep for a CPU; on a GPU run loadtests/gpu.py, or hide it: CUDA_VISIBLE_DEVICES= ",
            file=sys.stderr,
        )
        sys.exit(1)
    try:
        with tempfile.TemporaryDirectory(prefix="deepfake-tuning-") as name:
            lines = _measure(options, Path(name))
        write_report(options.output, lines)
    except (ExportError, EmbeddedTritonError, OSError, ValueError) as error:
        print(f"tuning: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("tuning: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    print("\n".join(lines))


def _options(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="whose configuration is served"
    )
    parser.add_argument("--model", default=STAND_IN, help="Hub id, local folder or «stand-in» (default: %(default)s)")
    parser.add_argument("--revision", help="of a Hub id")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--bare-seconds", type=float, default=2.0, help="of a bare round (default: %(default)s)")
    parser.add_argument("--served-seconds", type=float, default=8.0, help="of a served round (default: %(default)s)")
    parser.add_argument(
        "--complete", action="store_true", help="also fp16, batch × 4, batch 1, a long delay, …: slower"
    )
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/tuning.md"))
    options = parser.parse_args()
    if options.rounds < 1 or min(options.bare_seconds, options.served_seconds) <= 0:
        parser.error("--rounds must be at least 1, --bare-seconds and --served-seconds above 0")
    return options


def _measure(options: argparse.Namespace, folder: Path) -> list[str]:
    began = time.monotonic()
    cpu = read_configuration(configuration_path(options.repository, gpu=False))
    gpu = read_configuration(configuration_path(options.repository, gpu=True))
    precision, count = best_precision(), cores()
    delay = cpu.dynamic_batching.max_queue_delay_microseconds
    rows = bare_rows(precision, cpu.max_batch_size, count, complete=options.complete)
    services = served_rows(cpu.max_batch_size, delay, count, complete=options.complete)
    with open_models(options.model, options.revision, options.repository, folder) as models:
        bare = sweep_bare(rows, models, options.rounds, options.bare_seconds)
        served = sweep_served(
            services, models, Variant(precision), options.repository, folder, options.rounds, options.served_seconds
        )
    minutes = (time.monotonic() - began) / 60
    command = f"loadtests/tuning.py --rounds {options.rounds}{' --complete' if options.complete else ''}"
    head = [*circumstances(command, options.model), f"It took {minutes:.0f} minutes."]
    return page(head, bare, served, cpu, gpu)
