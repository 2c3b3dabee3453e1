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
from dataclasses import dataclass, field
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
class BareRow:
    """One row of the bare model's table; of the settings that are not named, what is shipped."""

    factor: str
    setting: str
    precision: Precision
    batch: int
    threads: int | None = None
    attention: str | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Over what the embedded Triton sets."""

    @property
    def process(self) -> object:
        """What is settled when a process starts; rows that agree in it share one."""
        return self.precision, tuple(self.environment.items())


@dataclass(frozen=True)
class ServedRow:
    """One row of a served model's table."""

    factor: str
    setting: str
    change: Change | None = None
    """Of the configuration of `model`, from what is shipped."""
    model: str = MODEL_NAME
    environment: Mapping[str, str] = field(default_factory=dict)
    batches_at_once: int = 1


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
    models: dict[Precision, Path] = {}

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

    def sweep(rows: list[ServedRow], payload: Literal["pixels", "image"]) -> list[table.Result]:
        return sweep_served(rows, models[shipped], payload, options, folder)

    tables = {
        "bare": bare,
        "served": sweep(served_rows(batch, delay, cores()), "pixels"),
        "images": sweep(image_rows(), "image"),
    }
    for rows in tables.values():
        for row in rows:
            row["share"] = row["images_per_second"]["median"] / rows[0]["images_per_second"]["median"]
    return {"circumstances": table.circumstances("tune", options.model), **tables}


def bare_rows(shipped: Precision, batch: int, cores: int) -> list[BareRow]:
    """Rows for a machine with so many cores; the first is what is shipped."""

    def row(factor: str, setting: str, **changes: object) -> BareRow:
        return BareRow(factor, setting, **{"precision": shipped, "batch": batch, **changes})  # type: ignore[arg-type]

    others = [each for each in (Precision.FP32, Precision.BF16) if each is not shipped]
    sizes = sorted({1, 2, batch // 2, batch * 2} - {0, batch})
    counts = sorted({max(cores // 2, 1), cores - 1, cores * 2} - {0, cores})
    return [
        row("as shipped", f"{shipped.value}, batch {batch}, {cores} threads"),
        *(row("precision", each.value, precision=each) for each in others),
        *(row("batch size", str(size), batch=size) for size in sizes),
        *(row("threads", str(count), threads=count) for count in counts),
        row("attention", "math kernel", attention="math"),
        row("memory", "glibc's allocator as it comes", environment=GLIBC),
        row("memory", "freed memory kept, small pages", environment=SMALL_PAGES),
        row("waiting threads", "spin for 3 ms, OpenMP's default", environment=_SPIN_A_WHILE),
    ]


def served_rows(batch: int, delay_us: int, cores: int) -> list[ServedRow]:
    """Rows for the embedded Triton at saturation; the first is what is shipped."""
    half = max(cores // 2, 1)
    shipped = f"batch {batch}, delay {delay_us / 1000:g} ms, 2 instances in turns, {cores} threads"
    return [
        ServedRow("as shipped", shipped),
        ServedRow("max_batch_size", str(max(batch // 2, 1)), _batch_size(max(batch // 2, 1))),
        ServedRow("max_batch_size", str(batch * 2), _batch_size(batch * 2)),
        ServedRow("queue delay", "0", _no_queue_delay),
        ServedRow("instances", "1", _one_instance),
        ServedRow("instances", "2 at once", _at_once(), batches_at_once=2),
        ServedRow("instances", f"2 at once, each on {half} of {cores} cores", _at_once(half), batches_at_once=2),
        ServedRow("waiting threads", "spin for 3 ms, OpenMP's default", environment=_SPIN_A_WHILE),
        *([ServedRow("threads", str(cores - 1), _threads(cores - 1))] if cores > 1 else []),
    ]


def image_rows() -> list[ServedRow]:
    """Rows for callers who send image files; the first is what is shipped."""
    return [
        ServedRow("as shipped", "2 instances in turns"),
        ServedRow("image_decoder's queue delay", "0", _no_queue_delay, "image_decoder"),
        ServedRow("instances", "1", _one_instance),
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
    rows: list[BareRow], models: Mapping[Precision, Path], options: argparse.Namespace
) -> list[table.Result]:
    """Each row for `--bare-seconds` and at least two passes, in every round."""
    answers: list[list[dict[str, float]]] = [[] for _ in rows]
    with contextlib.ExitStack() as stack:
        processes: dict[object, Worker] = {}
        for row in rows:
            if row.process not in processes:
                worker = bare_model(models[row.precision], environment=row.environment)
                processes[row.process] = stack.enter_context(worker)
        for number in range(options.rounds):
            table.tell(f"bare model, round {number + 1} of {options.rounds}")
            for row, found in zip(rows, answers, strict=True):
                question = {"batch": row.batch, "threads": row.threads, "attention": row.attention}
                found.append(processes[row.process].ask(seconds=options.bare_seconds, **question))
    return [
        {
            "factor": row.factor,
            "setting": row.setting,
            **{
                name: table.figure([answer[name] for answer in found])
                for name in ("images_per_second", "faults_per_image")
            },
        }
        for row, found in zip(rows, answers, strict=True)
    ]


def sweep_served(
    rows: list[ServedRow], model: Path, payload: Literal["pixels", "image"], options: argparse.Namespace, folder: Path
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
    return [
        {
            "factor": row.factor,
            "setting": row.setting,
            **{name: table.figure([getattr(run, name) for run in found]) for name in ServedRun.__dataclass_fields__},
        }
        for row, found in zip(rows, runs, strict=True)
    ]


def write_repository(source: Path, target: Path, model: Path, row: ServedRow) -> Path:
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
    return [
        "# What each setting is worth",
        "",
        *result["circumstances"],
        "",
        "Images per second, median of the rounds (lowest–highest). One setting at a time differs from what is shipped, the "
        "first row; a share is of that row. The rows of a table ran in turns.",
        "",
        "## The bare TorchScript model in one process",
        "",
        *_table(result["bare"], bare),
        "",
        "## Served by the embedded Triton, saturated over gRPC with distinct pixels",
        "",
        *_table(result["served"], served),
        "",
        "Queue and compute time are Triton's, a request's mean. Two instances hold the weights twice here: the Python backend "
        "has a process for each.",
        "",
        f"## {IMAGE_CALLERS} callers with image files over HTTP, each with one request at a time",
        "",
        *_table(result["images"], images, spread=True),
    ]


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
