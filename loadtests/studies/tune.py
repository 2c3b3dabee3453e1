"""What each setting of the model and of its server is worth on this machine's CPU, measured one at a time.

The bare TorchScript model in one process; the embedded Triton at saturation; and callers who send it image files.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT
from deepfake_deploy.export import MODEL_NAME, Precision
from google.protobuf import text_format

from loadtests.capacity.resources import cores
from loadtests.studies import serving, table
from loadtests.studies.worker import Ask, bare_model

IMAGE_CALLERS = 8
PRECISIONS = (None, Precision.FP32, Precision.BF16)  # None: what is fastest here, and so is shipped
SMALL_PAGES = TORCH_ENVIRONMENT | {"THP_MEM_ALLOC_ENABLE": "0"}
GLIBC = {name: value for name, value in SMALL_PAGES.items() if not name.startswith("MALLOC_")}
# What libgomp does where OMP_WAIT_POLICY is not set.
SPIN_A_WHILE = TORCH_ENVIRONMENT | {"GOMP_SPINCOUNT": "300000"}
SPINNING = ("waiting threads", "spin for 3 ms, OpenMP's default", {"environment": SPIN_A_WHILE})

#: Factor, setting, and what differs from what is shipped.
Row = tuple[str, str, dict[str, Any]]


def main() -> None:
    table.run_study("tune", table.study_parser(__doc__, rounds=3, seconds=8.0, model=True), measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    if torch.cuda.is_available():
        raise ValueError("this is the sweep for a CPU; run `make gpu`, or hide the GPU with CUDA_VISIBLE_DEVICES=")
    config = serving.read_configuration(options.repository)
    batch, delay_us = config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds
    with serving.exported(options, PRECISIONS, folder) as (_, repositories):
        models = {precision: serving.model_file(repository) for precision, repository in repositories.items()}
        shipped = next(iter(models))
        served = partial(_served, options, folder, models[shipped])
        return {
            "circumstances": table.circumstances("tune", options.model),
            "bare": _bare(options, models, shipped, batch),
            "served": served(served_rows(batch, delay_us, cores()), "pixels"),
            "images": served(image_rows(), "image"),
        }


def _bare(
    options: argparse.Namespace, models: Mapping[Precision, Path], shipped: Precision, batch: int
) -> list[table.Result]:
    processes: dict[object, Ask] = {}
    measures = {}
    with contextlib.ExitStack() as stack:
        for factor, setting, differs in bare_rows(shipped, batch, cores()):
            question = {"precision": shipped, "environment": TORCH_ENVIRONMENT, "batch": batch} | differs
            precision, environment = question.pop("precision"), question.pop("environment")
            process = precision, *environment.items()  # rows that agree in it share one
            if process not in processes:
                processes[process] = stack.enter_context(bare_model(models[precision], environment=environment))
            measures[factor, setting] = partial(processes[process], seconds=options.seconds / 4, **question)
        return shares(table.in_turns(measures, options.rounds))


def _served(
    options: argparse.Namespace, folder: Path, model: Path, rows: list[Row], payload: Literal["pixels", "image"]
) -> list[table.Result]:
    measures = {}
    with contextlib.ExitStack() as stack:
        for index, (factor, setting, differs) in enumerate(rows):
            table.tell(f"embedded Triton {index + 1} of {len(rows)} starts")
            target, changes = folder / f"{payload}-{index}", dict(differs)
            environment = changes.pop("environment", {})
            write_repository(options.repository, target, model, **changes)
            at_once = 2 if "at_once" in changes else 1
            callers = serving.saturating(target) * at_once if payload == "pixels" else IMAGE_CALLERS
            server = serving.serve(target, callers, payload=payload, environment=environment)
            measures[factor, setting] = partial(stack.enter_context(server), options.seconds)
        return shares(table.in_turns(measures, options.rounds))


def shares(found: Mapping[tuple[str, str], list[Mapping[str, float]]]) -> list[table.Result]:
    """What each factor and setting comes to, and its share of the first one's images per second."""
    rows = {row: table.figures(rounds) for row, rounds in found.items()}
    shipped = next(iter(rows.values()))["images_per_second"]["median"]
    return [
        {"factor": factor, "setting": setting, **row, "share": row["images_per_second"]["median"] / shipped}
        for (factor, setting), row in rows.items()
    ]


def bare_rows(shipped: Precision, batch: int, cores: int) -> list[Row]:
    """Rows for a machine with so many cores; the first is what is shipped."""
    other = Precision.FP32 if shipped is Precision.BF16 else Precision.BF16
    sizes = sorted({1, 2, batch // 2, batch * 2} - {0, batch})
    counts = sorted({max(cores // 2, 1), cores - 1, cores * 2} - {0, cores})
    return [
        ("as shipped", f"{shipped.value}, batch {batch}, {cores} threads", {}),
        ("precision", other.value, {"precision": other}),
        *(("batch size", str(size), {"batch": size}) for size in sizes),
        *(("threads", str(count), {"threads": count}) for count in counts),
        ("attention", "math kernel", {"attention": "MATH"}),
        ("memory", "glibc's allocator as it comes", {"environment": GLIBC}),
        ("memory", "freed memory kept, small pages", {"environment": SMALL_PAGES}),
        SPINNING,
    ]


def served_rows(batch: int, delay_us: int, cores: int) -> list[Row]:
    """Rows for the embedded Triton at saturation; the first is what is shipped."""
    half, less = max(cores // 2, 1), max(cores - 1, 1)
    half_each = f"2 at once, each on {half} of {cores} cores"
    return [
        ("as shipped", f"batch {batch}, delay {delay_us / 1000:g} ms, 2 instances in turns, {cores} threads", {}),
        ("max_batch_size", str(batch // 2), {"max_batch_size": batch // 2}),
        ("max_batch_size", str(batch * 2), {"max_batch_size": batch * 2}),
        ("queue delay", "0", {"queue_delay_us": 0}),
        ("instances", "1", {"instances": 1}),
        ("instances", "2 at once", {"at_once": True}),
        ("instances", half_each, {"at_once": True, "threads": half}),
        SPINNING,
        ("threads", str(less), {"threads": less}),
    ]


def image_rows() -> list[Row]:
    """Rows for callers who send image files; the first is what is shipped."""
    return [
        ("as shipped", "2 instances in turns", {}),
        ("image_decoder's queue delay", "0", {"queue_delay_us": 0, "configured": "image_decoder"}),
        ("instances", "1", {"instances": 1}),
    ]


def write_repository(
    source: Path,
    target: Path,
    model: Path,
    *,
    configured: str = MODEL_NAME,
    max_batch_size: int | None = None,
    queue_delay_us: int | None = None,
    instances: int | None = None,
    threads: int | None = None,
    at_once: bool = False,
) -> None:
    """Copies a model repository with `model` as its weights, and changes the configuration of `configured`.

    Args:
        max_batch_size: where it changes, the ensemble and its decoder, which have another, are left out.
        at_once: all instances compute at the same time, in place of taking turns.
    """
    serving.copy_without_weights(source, target)
    file = serving.model_file(target)
    file.parent.mkdir()
    os.link(model, file)
    config = serving.read_configuration(target, configured)
    if max_batch_size is not None:
        config.max_batch_size = config.model_warmup[-1].batch_size = max_batch_size
        for name in ("deepfake_vs_real_image", "image_decoder"):
            shutil.rmtree(target / name)
    if queue_delay_us is not None:
        config.dynamic_batching.max_queue_delay_microseconds = queue_delay_us
    if instances is not None:
        config.instance_group[0].count = instances
    if threads is not None:
        config.parameters["INTRA_OP_THREAD_COUNT"].string_value = str(threads)
    if at_once:
        config.instance_group[0].ClearField("rate_limiter")
    path = serving.configuration_path(target, configured)
    path.write_text(text_format.MessageToString(config), encoding="utf-8")


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
