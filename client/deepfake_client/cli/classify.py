"""`deepfake classify`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deepfake_client import DeepfakeClient, DeepfakeError, Failure, Verdict

from .console import fail, stderr
from .files import list_files
from .formats import WRITERS, Writer
from .given_path import GivenPath


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=GivenPath())
@click.option("--url", default="grpc://127.0.0.1:8001", show_default=True, help="grpc, grpcs, http or https.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(WRITERS)),
    default="table",
    show_default=True,
    help="What is written to stdout.",
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Requests in flight.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds that one image may take, retries included.",
)
def command(paths: tuple[Path, ...], url: str, format_name: str, concurrency: int, timeout: float) -> None:
    """Tell for each image, and each file of each folder, whether it is a deepfake.

    Exits with 0 when every file got a verdict, with 1 when some did not.
    """
    try:
        with DeepfakeClient(url, timeout=timeout) as client:
            # Asked first: a server that is away is one error at once, not one for each file after its retries.
            if not client.ready():
                fail(f"{url}: no server answers there, or it is not ready; start one with `deepfake serve`")
            labels = client.model_info().labels
            results = client.classify_many(_files(paths), concurrency=concurrency)
            total, failed = _write(results, WRITERS[format_name](sys.stdout, labels), paths)
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
    with _progress() as progress:
        count = None if progress.disable else sum(1 for _ in _files(paths))
        task = progress.add_task("Classifying", total=count)
        for result in results:
            total += 1
            failed += isinstance(result, Failure)
            writer.write(result)
            sys.stdout.flush()
            progress.advance(task)
        writer.close()
    return total, failed


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr,
        disable=not sys.stderr.isatty(),
        transient=True,
        # On one and the same terminal the lines have to go above the bar.
        redirect_stdout=sys.stdout.isatty(),
    )
