"""What each setting of the model and of its server is worth on this machine's CPU, measured one at a time.

    python -m loadtests.studies.tune [--rounds 3]

The bare TorchScript model in one process; the embedded Triton at saturation; and callers who send it image files.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT
from deepfake_deploy.export import FIRST_VERSION, MODEL_FILE, MODEL_NAME, Precision
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtests.capacity.resources import cores
from loadtests.studies import serving, table
from loadtests.studies.worker import Ask, bare_model

IMAGE_CALLERS = 8
SMALL_PAGES = TORCH_ENVIRONMENT | {"THP_MEM_ALLOC_ENABLE": "0"}
GLIBC = {name: value for name, value in SMALL_PAGES.items() if not name.startswith("MALLOC_")}
# What libgomp does where OMP_WAIT_POLICY is not set.
SPIN_A_WHILE = TORCH_ENVIRONMENT | {"GOMP_SPINCOUNT": "300000"}


@dataclass(frozen=True)
class Row:
    """One row of a table; of the settings that are not named, what is shipped."""

    factor: str
    setting: str
    precision: Precision | None = None
    question: Mapping[str, Any] = field(default_factory=dict)
    """For the bare model's worker: batch, threads, attention."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """For a server: the arguments of `change` for `model`'s configuration."""
    model: str = MODEL_NAME
    environment: Mapping[str, str] = field(default_factory=lambda: TORCH_ENVIRONMENT)


def main() -> None:
    table.run_study("tune", table.study_parser(__doc__, rounds=3, seconds=8.0, model=True), measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    if torch.cuda.is_available():
        raise ValueError("this is the sweep for a CPU; run `make gpu`, or hide the GPU with CUDA_VISIBLE_DEVICES=")
    config = serving.read_configuration(serving.configuration_path(options.repository))
    batch, delay_us = config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds
    models: dict[Precision, Path] = {}
    for wanted in (None, Precision.FP32, Precision.BF16):
        if wanted not in models:
            model, precision = serving.export(options.model, wanted, options.repository, folder / f"exported-{wanted}")
            models[precision] = model
    shipped = next(iter(models))
    rounds, seconds = options.rounds, options.seconds

    def served(rows: list[Row], payload: Literal["pixels", "image"]) -> list[table.Result]:
        with contextlib.ExitStack() as stack:
            measures = {}
            for index, row in enumerate(rows):
                table.tell(f"embedded Triton {index + 1} of {len(rows)} starts")
                target = write_repository(options.repository, folder / f"{payload}-{index}", models[shipped], row)
                at_once = 2 if row.changes.get("at_once") else 1
                callers = serving.saturating(target) * at_once if payload == "pixels" else IMAGE_CALLERS
                server = serving.serve(target, callers, payload=payload, environment=row.environment)
                measures[row.factor, row.setting] = partial(stack.enter_context(server), seconds)
            return sweep(measures, rounds)

    with contextlib.ExitStack() as stack:
        workers: dict[object, Ask] = {}
        measures = {}
        for row in bare_rows(shipped, batch, cores()):
            process = row.precision, *row.environment.items()  # rows that agree in it share one
            if process not in workers:
                opening = bare_model(models[row.precision], environment=row.environment)
                workers[process] = stack.enter_context(opening)
            measures[row.factor, row.setting] = partial(workers[process], seconds=seconds / 4, **row.question)
        bare = sweep(measures, rounds)
    return {
        "circumstances": table.circumstances("tune", options.model),
        "bare": bare,
        "served": served(served_rows(batch, delay_us, cores()), "pixels"),
        "images": served(image_rows(), "image"),
    }


def sweep(measures: Mapping[tuple[str, str], Callable[[], Mapping[str, float]]], rounds: int) -> list[table.Result]:
    """What each factor and setting comes to, and its share of the first one's images per second."""
    found = {row: table.figures(readings) for row, readings in table.in_turns(measures, rounds).items()}
    shipped = next(iter(found.values()))["images_per_second"]["median"]
    return [
        {"factor": factor, "setting": setting, **row, "share": row["images_per_second"]["median"] / shipped}
        for (factor, setting), row in found.items()
    ]


def bare_rows(shipped: Precision, batch: int, cores: int) -> list[Row]:
    """Rows for a machine with so many cores; the first is what is shipped."""
    other = Precision.FP32 if shipped is Precision.BF16 else Precision.BF16
    same = {"batch": batch}
    sizes = sorted({1, 2, batch // 2, batch * 2} - {0, batch})
    counts = sorted({max(cores // 2, 1), cores - 1, cores * 2} - {0, cores})
    return [
        Row("as shipped", f"{shipped.value}, batch {batch}, {cores} threads", shipped, same),
        Row("precision", other.value, other, same),
        *(Row("batch size", str(size), shipped, {"batch": size}) for size in sizes),
        *(Row("threads", str(count), shipped, same | {"threads": count}) for count in counts),
        Row("attention", "math kernel", shipped, same | {"attention": "MATH"}),
        Row("memory", "glibc's allocator as it comes", shipped, same, environment=GLIBC),
        Row("memory", "freed memory kept, small pages", shipped, same, environment=SMALL_PAGES),
        Row("waiting threads", "spin for 3 ms, OpenMP's default", shipped, same, environment=SPIN_A_WHILE),
    ]


def served_rows(batch: int, delay_us: int, cores: int) -> list[Row]:
    """Rows for the embedded Triton at saturation; the first is what is shipped."""
    half, less = max(cores // 2, 1), max(cores - 1, 1)
    half_each = f"2 at once, each on {half} of {cores} cores"
    return [
        Row("as shipped", f"batch {batch}, delay {delay_us / 1000:g} ms, 2 instances in turns, {cores} threads"),
        Row("max_batch_size", str(batch // 2), changes={"max_batch_size": batch // 2}),
        Row("max_batch_size", str(batch * 2), changes={"max_batch_size": batch * 2}),
        Row("queue delay", "0", changes={"queue_delay_us": 0}),
        Row("instances", "1", changes={"instances": 1}),
        Row("instances", "2 at once", changes={"at_once": True}),
        Row("instances", half_each, changes={"at_once": True, "threads": half}),
        Row("waiting threads", "spin for 3 ms, OpenMP's default", environment=SPIN_A_WHILE),
        Row("threads", str(less), changes={"threads": less}),
    ]


def image_rows() -> list[Row]:
    """Rows for callers who send image files; the first is what is shipped."""
    return [
        Row("as shipped", "2 instances in turns"),
        Row("image_decoder's queue delay", "0", changes={"queue_delay_us": 0}, model="image_decoder"),
        Row("instances", "1", changes={"instances": 1}),
    ]


def change(
    config: ModelConfig,
    max_batch_size: int | None = None,
    queue_delay_us: int | None = None,
    instances: int | None = None,
    threads: int | None = None,
    *,
    at_once: bool = False,
) -> None:
    """Changes a configuration; `at_once` lets all instances compute at the same time, in place of taking turns."""
    if max_batch_size is not None:
        config.max_batch_size = max_batch_size
        full = config.model_warmup[-1]  # the entry of the whole batch
        full.name, full.batch_size = f"batch {max_batch_size}", max_batch_size
    if queue_delay_us is not None:
        config.dynamic_batching.max_queue_delay_microseconds = queue_delay_us
    if instances is not None:
        config.instance_group[0].count = instances
    if threads is not None:
        config.parameters["INTRA_OP_THREAD_COUNT"].string_value = str(threads)
    if at_once:
        config.instance_group[0].ClearField("rate_limiter")


def write_repository(source: Path, target: Path, model: Path, row: Row) -> Path:
    """Copies `source` without its weights, links `model` into it, and changes a configuration for the CPU.

    The ensemble and its decoder are left out where the batch size is not what theirs is.
    """
    shutil.copytree(source, target, ignore=serving.without_versions)
    version = target / MODEL_NAME / str(FIRST_VERSION)
    version.mkdir()
    os.link(model, version / MODEL_FILE)
    path = serving.configuration_path(target, model=row.model)
    config = serving.read_configuration(path)
    change(config, **row.changes)
    path.write_text(text_format.MessageToString(config), encoding="utf-8")
    for name in ("deepfake_vs_real_image", "image_decoder") if "max_batch_size" in row.changes else ():
        shutil.rmtree(target / name)
    return target


def page(result: table.Result) -> list[str]:
    served = {"mean batch": ("batch", 1), "queue, ms": ("queue_ms", 0), "compute, ms": ("compute_ms", 0)}
    latencies = {"p50, ms": ("p50_ms", 0), "p99, ms": ("p99_ms", 0), "mean batch": ("batch", 1)}
    return table.page_of(
        "What each setting is worth",
        result,
        "## The bare TorchScript model in one process",
        _table(result["bare"], {"page faults an image": ("faults_per_image", 0)}),
        "## Served by the embedded Triton, saturated over gRPC with distinct pixels",
        _table(result["served"], served | {"memory, MiB": ("memory_mib", 0)}),
        f"## {IMAGE_CALLERS} callers with image files over HTTP, each with one request at a time",
        _table(result["images"], latencies),
    )


def _table(rows: list[table.Result], columns: Mapping[str, tuple[str, int]]) -> list[str]:
    cells = [
        [
            *(row["factor"], row["setting"], table.shown(row["images_per_second"]), f"{row['share']:.2f}"),
            *(table.shown(row[name], digits) for name, digits in columns.values()),
        ]
        for row in rows
    ]
    return table.markdown_table(["factor", "setting", "images/s", "share", *columns], cells, words=2)


if __name__ == "__main__":
    main()
