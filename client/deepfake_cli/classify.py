"""`deepfake classify`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
from deepfake_client import DeepfakeError, Failure, PolicyMismatchError, Verdict
from deepfake_client._files import list_files

from .connection import Server, concurrency_option, server_options
from .console import fail
from .formats import WRITERS, Writer
from .parameters import GivenPath
from .progress import image_progress


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=GivenPath())
@server_options
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(WRITERS)),
    default="table",
    show_default=True,
    help="What is written to stdout.",
)
@concurrency_option
@click.option(
    "--policy",
    type=GivenPath(),
    metavar="FILE",
    help="Written by `deepfake calibrate`; adds a decision to each verdict: Deepfake, Real one or unsure.",
)
def command(paths: tuple[Path, ...], server: Server, format_name: str, concurrency: int, policy: Path | None) -> None:
    """Tell for each image, and each file of each folder, whether it is a deepfake.

    Exits with 0 when every file got a verdict, with 1 when some did not.
    """
    try:
        with server.ready_client(policy=policy) as client:
            writer = WRITERS[format_name](sys.stdout, client.model_info().labels, decisions=policy is not None)
            results = client.classify_many(_files(paths), concurrency=concurrency)
            total, failed = _write(results, writer, paths)
    except DeepfakeError as error:
        fail(str(error))
    if total == 0:
        fail(f"{', '.join(map(str, paths))}: no files in it")
    sys.exit(1 if failed else 0)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    return itertools.chain.from_iterable(list_files(path) for path in paths)


def _write(results: Iterable[Verdict | Failure], writer: Writer, paths: Sequence[Path]) -> tuple[int, int]:
    """Write each result as it comes; how many there were, and how many of them are failures."""
    if sys.stdout is None:
        fail("there is no standard output to write to")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names need not be valid UTF-8
    total = failed = 0
    with image_progress() as progress:
        count = None if progress.disable else sum(1 for _ in _files(paths))
        task = progress.add_task("Classifying", total=count)
        for result in results:
            if isinstance(result, Failure) and isinstance(result.error, PolicyMismatchError):
                writer.close()
                fail(result.error.reason)  # what is wrong with every file is told once
            total += 1
            failed += isinstance(result, Failure)
            writer.write(result)
            sys.stdout.flush()
            progress.advance(task)
        writer.close()
    return total, failed
