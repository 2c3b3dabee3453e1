"""What each setting of the model and of its server is worth on this machine's CPU, measured one at a time.

    python -m loadtests.studies.tune [--rounds 3]

The bare TorchScript model in one process: precision, batch size, threads, attention, allocator and how OpenMP's threads
wait. Then the embedded Triton at saturation: batch size, queue delay, instances, threads. Then eight callers who send
image files: the decoder's queue delay, instances. All rows of a table run in turns. Ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT
from deepfake_deploy.export import FIRST_VERSION, MODEL_FILE, MODEL_NAME, Precision
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtests.capacity.resources import cores
from loadtests.studies import table
from loadtests.studies.serving import (
    Served,
    ServedRun,
    configuration_path,
    export,
    max_batch_size,
    read_configuration,
    saturating,
    serve,
    without_versions,
)
from loadtests.studies.worker import Worker, bare_model

IMAGE_CALLERS = 8
_ENSEMBLE = ("deepfake_vs_real_image", "image_decoder")
SMALL_PAGES = {"THP_MEM_ALLOC_ENABLE": "0"}
GLIBC = {**SMALL_PAGES, **{name: None for name in TORCH_ENVIRONMENT if name.startswith("MALLOC_")}}
# What libgomp does where OMP_WAIT_POLICY is not set.
_SPIN_A_WHILE = {"GOMP_SPINCOUNT": "300000"}


Change = Callable[[ModelConfig], None]


@dataclass(frozen=True)
class Row:
    """One row of a table; of the settings that are not named, what is shipped."""

    factor: str
    setting: str
    precision: Precision | None = None
    question: Mapping[str, object] = field(default_factory=dict)
    """For the bare model's worker: batch, threads, attention."""
    change: Change | None = None
    """Of the configuration of `model`, for a server."""
    model: str = MODEL_NAME
    batches_at_once: int = 1
    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Over what the embedded Triton sets."""


def main() -> None:
    parser = table.study_parser(__doc__, rounds=3)
    parser.add_argument(
        "--bare-seconds", type=table.seconds, default=2.0, help="of a bare round (default: %(default)s)"
    )
    parser.add_argument(
        "--served-seconds", type=table.seconds, default=8.0, help="of a served round (default: %(default)s)"
    )
    options = parser.parse_args()
    if torch.cuda.is_available():
        sys.exit("tune: this is the sweep for a CPU; run `make gpu`, or hide the GPU with CUDA_VISIBLE_DEVICES=")
    table.run_study("tune", options, measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    config = read_configuration(configuration_path(options.repository))
    batch, delay = config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds
    models: dict[Precision | None, Path] = {}

    def exported(wanted: Precision | None) -> Precision:
        target = folder / f"exported-{wanted}"
        model, precision = export(options.model, options.revision, wanted, options.repository, target)
        models[precision] = model
        return precision

    shipped = exported(None)
    for precision in (Precision.FP32, Precision.BF16):
        if precision is not shipped:
            exported(precision)
    bare = sweep_bare(bare_rows(shipped, batch, cores()), models, options)

    def sweep(rows: list[Row], payload: Literal["pixels", "image"]) -> list[table.Result]:
        return sweep_served(rows, models[shipped], payload, options, folder)

    return {
        "circumstances": table.circumstances("tune", options.model),
        "bare": bare,
        "served": sweep(served_rows(batch, delay, cores()), "pixels"),
        "images": sweep(image_rows(), "image"),
    }


def bare_rows(shipped: Precision, batch: int, cores: int) -> list[Row]:
    """Rows for a machine with so many cores; the first is what is shipped."""

    def row(factor: str, setting: str, environment: Mapping[str, str | None] | None = None, **question: object) -> Row:
        return Row(factor, setting, shipped, {"batch": batch, **question}, environment=environment or {})

    others = [each for each in (Precision.FP32, Precision.BF16) if each is not shipped]
    sizes = sorted({1, 2, batch // 2, batch * 2} - {0, batch})
    counts = sorted({max(cores // 2, 1), cores - 1, cores * 2} - {0, cores})
    return [
        row("as shipped", f"{shipped.value}, batch {batch}, {cores} threads"),
        *(Row("precision", each.value, each, {"batch": batch}) for each in others),
        *(row("batch size", str(size), batch=size) for size in sizes),
        *(row("threads", str(count), threads=count) for count in counts),
        row("attention", "math kernel", attention="math"),
        row("memory", "glibc's allocator as it comes", GLIBC),
        row("memory", "freed memory kept, small pages", SMALL_PAGES),
        row("waiting threads", "spin for 3 ms, OpenMP's default", _SPIN_A_WHILE),
    ]


def served_rows(batch: int, delay_us: int, cores: int) -> list[Row]:
    """Rows for the embedded Triton at saturation; the first is what is shipped."""
    half = max(cores // 2, 1)
    shipped = f"batch {batch}, delay {delay_us / 1000:g} ms, 2 instances in turns, {cores} threads"
    return [
        Row("as shipped", shipped),
        Row("max_batch_size", str(max(batch // 2, 1)), change=_batch_size(max(batch // 2, 1))),
        Row("max_batch_size", str(batch * 2), change=_batch_size(batch * 2)),
        Row("queue delay", "0", change=_no_queue_delay),
        Row("instances", "1", change=_one_instance),
        Row("instances", "2 at once", change=_at_once(), batches_at_once=2),
        Row("instances", f"2 at once, each on {half} of {cores} cores", change=_at_once(half), batches_at_once=2),
        Row("waiting threads", "spin for 3 ms, OpenMP's default", environment=_SPIN_A_WHILE),
        *([Row("threads", str(cores - 1), change=_threads(cores - 1))] if cores > 1 else []),
    ]


def image_rows() -> list[Row]:
    """Rows for callers who send image files; the first is what is shipped."""
    return [
        Row("as shipped", "2 instances in turns"),
        Row("image_decoder's queue delay", "0", change=_no_queue_delay, model="image_decoder"),
        Row("instances", "1", change=_one_instance),
    ]


def _batch_size(size: int) -> Change:
    def change(config: ModelConfig) -> None:
        config.max_batch_size = size
        warm = [entry for entry in config.model_warmup if entry.batch_size < size]
        full = config.model_warmup[-1]
        full.name, full.batch_size = f"batch {size}", size
        kept = [*warm, full]
        del config.model_warmup[:]
        config.model_warmup.extend(kept)

    return change


def _no_queue_delay(config: ModelConfig) -> None:
    config.dynamic_batching.max_queue_delay_microseconds = 0


def _one_instance(config: ModelConfig) -> None:
    config.instance_group[0].count = 1


def _threads(count: int) -> Change:
    def change(config: ModelConfig) -> None:
        config.parameters["INTRA_OP_THREAD_COUNT"].string_value = str(count)

    return change


def _at_once(threads: int | None = None) -> Change:
    """All instances compute at the same time, in place of taking turns."""

    def change(config: ModelConfig) -> None:
        config.instance_group[0].ClearField("rate_limiter")
        if threads:
            _threads(threads)(config)

    return change


def sweep_bare(
    rows: list[Row], models: Mapping[Precision | None, Path], options: argparse.Namespace
) -> list[table.Result]:
    """Each row for `--bare-seconds` and at least two passes, in every round."""
    answers: list[list[dict[str, float]]] = [[] for _ in rows]
    with contextlib.ExitStack() as stack:
        workers: dict[object, Worker] = {}
        for number in range(options.rounds):
            table.tell(f"bare model, round {number + 1} of {options.rounds}")
            for row, found in zip(rows, answers, strict=True):
                process = row.precision, tuple(row.environment.items())  # rows that agree in it share one
                if process not in workers:
                    worker = bare_model(models[row.precision], environment=row.environment)
                    workers[process] = stack.enter_context(worker)
                found.append(workers[process].ask(seconds=options.bare_seconds, **row.question))
    return _results(rows, answers)


def sweep_served(
    rows: list[Row], model: Path, payload: Literal["pixels", "image"], options: argparse.Namespace, folder: Path
) -> list[table.Result]:
    """Each row's server for `--served-seconds` in every round; all run side by side, and only one is asked at a time."""
    runs: list[list[ServedRun]] = [[] for _ in rows]
    with contextlib.ExitStack() as stack:
        servers: list[Served] = []
        for index, row in enumerate(rows):
            table.tell(f"embedded Triton {index + 1} of {len(rows)} starts")
            target = write_repository(options.repository, folder / f"{payload}-{index}", model, row)
            callers = saturating(max_batch_size(target) * row.batches_at_once) if payload == "pixels" else IMAGE_CALLERS
            servers.append(stack.enter_context(serve(target, callers, payload=payload, environment=row.environment)))
        for number in range(options.rounds):
            table.tell(f"{payload}, round {number + 1} of {options.rounds}")
            for server, found in zip(servers, runs, strict=True):
                found.append(server.measure(options.served_seconds))
    return _results(rows, [[asdict(run) for run in found] for found in runs])


def _results(rows: list[Row], rounds: list[list[dict[str, float]]]) -> list[table.Result]:
    """What the rounds of each row come to, and its share of the first row's images per second."""
    results: list[table.Result] = [
        {"factor": row.factor, "setting": row.setting}
        | {name: table.figure([each[name] for each in found]) for name in found[0]}
        for row, found in zip(rows, rounds, strict=True)
    ]
    shipped = results[0]["images_per_second"]["median"]
    return [row | {"share": row["images_per_second"]["median"] / shipped} for row in results]


def write_repository(source: Path, target: Path, model: Path, row: Row) -> Path:
    """Copies `source` without its weights, links `model` into it, and changes a configuration for the CPU.

    The ensemble and its decoder are left out where the batch size is not what theirs is.
    """
    shutil.copytree(source, target, ignore=without_versions)
    version = target / MODEL_NAME / str(FIRST_VERSION)
    version.mkdir()
    os.link(model, version / MODEL_FILE)
    path = configuration_path(target, model=row.model)
    config = read_configuration(path)
    size = config.max_batch_size
    if row.change:
        row.change(config)
    path.write_text(text_format.MessageToString(config), encoding="utf-8")
    for name in _ENSEMBLE if config.max_batch_size != size else ():
        shutil.rmtree(target / name)
    return target


def page(result: table.Result) -> list[str]:
    bare = {"page faults an image": ("faults_per_image", 0)}
    served = {
        "mean batch": ("batch", 1),
        "queue, ms": ("queue_ms", 0),
        "compute, ms": ("compute_ms", 0),
        "memory, MiB": ("memory_mib", 0),
    }
    images = {"p50, ms": ("p50_ms", 0), "p99, ms": ("p99_ms", 0), "mean batch": ("batch", 1)}
    return table.page_of(
        "What each setting is worth",
        result,
        "Images per second, median of the rounds (lowest–highest). One setting at a time differs from what is shipped, the "
        "first row; a share is of that row. The rows of a table ran in turns.",
        "## The bare TorchScript model in one process",
        _table(result["bare"], bare),
        "## Served by the embedded Triton, saturated over gRPC with distinct pixels",
        _table(result["served"], served),
        "Queue and compute time are Triton's, a request's mean. Two instances hold the weights twice here: the Python backend "
        "has a process for each.",
        f"## {IMAGE_CALLERS} callers with image files over HTTP, each with one request at a time",
        _table(result["images"], images, spread=True),
    )


def _table(rows: list[table.Result], columns: Mapping[str, tuple[str, int]], *, spread: bool = False) -> list[str]:
    cells = [
        [
            row["factor"],
            row["setting"],
            table.shown(row["images_per_second"]),
            f"{row['share']:.2f}",
            *(
                table.shown(row[name], digits) if spread else f"{row[name]['median']:.{digits}f}"
                for name, digits in columns.values()
            ),
        ]
        for row in rows
    ]
    return table.markdown_table(["factor", "setting", "images/s", "share", *columns], cells, words=2)


if __name__ == "__main__":
    main()
