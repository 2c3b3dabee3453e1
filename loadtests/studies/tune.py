"""What each setting of the model and of its server is worth on this machine's CPU, measured one at a time.

The embedded Triton is saturated over gRPC with distinct pixels.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deepfake_deploy.export import Precision
from deepfake_deploy.export.torchscript import best_precision
from google.protobuf import text_format

from loadtests.capacity.resources import cores
from loadtests.studies import serving, table

#: Figure → its column and digits.
_COLUMNS = {
    "batch": ("mean batch", 1),
    "queue_ms": ("queue, ms", 0),
    "compute_ms": ("compute, ms", 0),
    "memory_mib": ("memory, MiB", 0),
}

#: Factor, setting, and what differs from what is shipped: the `precision`, or arguments of write_repository.
Row = tuple[str, str, dict[str, Any]]


def main() -> None:
    table.run_study("tune", table.study_parser(__doc__, rounds=3, seconds=8.0, model=True), measure, page)


def measure(options: argparse.Namespace, folder: Path) -> table.Result:
    if torch.cuda.is_available():
        raise ValueError("this is the sweep for a CPU; run `make gpu`, or hide the GPU with CUDA_VISIBLE_DEVICES=")
    config = serving.read_configuration(options.repository)
    batch, delay_us = config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds
    measures = {}
    with serving.exported(options, precisions(), folder) as (_, repositories), contextlib.ExitStack() as stack:
        rows = served_rows([*repositories], batch, delay_us, cores())
        for index, (factor, setting, differs) in enumerate(rows):
            table.tell(f"embedded Triton {index + 1} of {len(rows)} starts")
            changes = {"precision": next(iter(repositories))} | differs
            source, target = repositories[changes.pop("precision")], folder / str(index)
            write_repository(source, target, **changes)
            callers = serving.saturating(target) * (2 if "at_once" in changes else 1)
            server = stack.enter_context(serving.serve(target, callers))
            measures[factor, setting] = partial(server, options.seconds)
        found = table.in_turns(measures, options.rounds)
    return {
        "circumstances": table.circumstances("tune", options.model),
        "served": shares({row: table.figures(rounds) for row, rounds in found.items()}),
    }


def precisions() -> list[Precision]:
    """The first is what is shipped."""
    shipped = best_precision()
    return [shipped, *(each for each in serving.precisions() if each is not shipped)]


def shares(found: Mapping[tuple[str, str], Mapping[str, table.Figure]]) -> list[table.Result]:
    """A row for each factor and setting, with its share of the first one's images per second."""
    shipped = next(iter(found.values()))["images_per_second"]["median"]
    return [
        {"factor": factor, "setting": setting, **row, "share": row["images_per_second"]["median"] / shipped}
        for (factor, setting), row in found.items()
    ]


def served_rows(precisions: Sequence[Precision], batch: int, delay_us: int, cores: int) -> list[Row]:
    """Rows for a machine with so many cores; the first, in the first of the precisions, is what is shipped."""
    shipped, *others = precisions
    half, less = max(cores // 2, 1), max(cores - 1, 1)
    whole = f"{shipped.value}, batch {batch}, delay {delay_us / 1000:g} ms, 2 instances in turns, {cores} threads"
    half_each = f"2 at once, each on {half} of {cores} cores"
    return [
        ("as shipped", whole, {}),
        *(("precision", each.value, {"precision": each}) for each in others),
        ("max_batch_size", str(batch // 2), {"max_batch_size": batch // 2}),
        ("max_batch_size", str(batch * 2), {"max_batch_size": batch * 2}),
        ("queue delay", "0", {"queue_delay_us": 0}),
        ("instances", "1", {"instances": 1}),
        ("instances", "2 at once", {"at_once": True}),
        ("instances", half_each, {"at_once": True, "threads": half}),
        ("threads", str(less), {"threads": less}),
    ]


def write_repository(
    source: Path,
    target: Path,
    *,
    max_batch_size: int | None = None,
    queue_delay_us: int | None = None,
    instances: int | None = None,
    threads: int | None = None,
    at_once: bool = False,
) -> None:
    """Copies a model repository, its files as hard links, and changes the configuration of deepfake_vs_real.

    Args:
        max_batch_size: where it changes, the ensemble and its decoder, which have another, are left out.
        at_once: all instances compute at the same time, in place of taking turns.
    """
    shutil.copytree(source, target, copy_function=os.link)
    config = serving.read_configuration(target)
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
    path = serving.configuration_path(target)
    path.unlink()  # the link; what is written into it would be the source's as well
    path.write_text(text_format.MessageToString(config), encoding="utf-8")


def page(result: table.Result) -> list[str]:
    cells = [
        [
            *(row["factor"], row["setting"], table.shown(row["images_per_second"]), f"{row['share']:.2f}"),
            *(table.shown(row[name], digits) for name, (_, digits) in _COLUMNS.items()),
        ]
        for row in result["served"]
    ]
    header = ["factor", "setting", "images/s", "share", *(title for title, _ in _COLUMNS.values())]
    return table.page_of("What each setting is worth", result, table.markdown_table(header, cells, words=2))


if __name__ == "__main__":
    main()
