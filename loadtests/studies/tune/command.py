"""The command: options in, a page out."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from deepfake_deploy.embedded.installation import cuda_device_count
from deepfake_deploy.export.torchscript import best_precision

from loadtests.capacity.resources import cores
from loadtests.studies.model_speed.command import add_model_options, measure_and_write
from loadtests.studies.model_speed.report import circumstances
from loadtests.studies.model_speed.repositories import configuration_path, read_configuration
from loadtests.studies.model_speed.variants import Variant, open_models

from .image_callers import sweep_image_callers
from .rows import bare_rows, image_rows, served_rows
from .sweep import sweep_bare, sweep_served
from .table import Sweep, page


def main(description: str | None = None) -> None:
    """Measures and writes the page; ends with 0, 1 when something failed, 2 for wrong usage."""
    options = _options(description)
    if cuda_device_count():
        print(
            "tuning: this is the sweep for a CPU; on a GPU run loadtests/gpu.py, or hide it: CUDA_VISIBLE_DEVICES= ",
            file=sys.stderr,
        )
        sys.exit(1)
    measure_and_write("tuning", options, _measure)


def _options(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
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


def _measure(options: argparse.Namespace, folder: Path) -> tuple[list[str], list[str]]:
    began = time.monotonic()
    cpu = read_configuration(configuration_path(options.repository, gpu=False))
    gpu = read_configuration(configuration_path(options.repository, gpu=True))
    decoder = read_configuration(configuration_path(options.repository, gpu=False, model="image_decoder"))
    precision, count = best_precision(), cores()
    delay = cpu.dynamic_batching.max_queue_delay_microseconds
    rows = bare_rows(precision, cpu.max_batch_size, count, complete=options.complete)
    services = served_rows(cpu.max_batch_size, delay, count, complete=options.complete)
    with open_models(options.model, options.revision, options.repository, folder) as models:
        bare = sweep_bare(rows, models, options.rounds, options.bare_seconds)
        served = sweep_served(
            services, models, Variant(precision), options.repository, folder, options.rounds, options.served_seconds
        )
        images = sweep_image_callers(
            image_rows(),
            models.write(Variant(precision)),
            options.repository,
            folder,
            2 * options.rounds,
            options.served_seconds,
        )
    minutes = (time.monotonic() - began) / 60
    command = f"-m loadtests.studies.tune --rounds {options.rounds}{' --complete' if options.complete else ''}"
    head = [*circumstances(command, options.model), f"It took {minutes:.0f} minutes."]
    return page(head, Sweep(bare, served, images, cpu, gpu, decoder)), []
