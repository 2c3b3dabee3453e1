"""`deepfake classify`: each verdict on stdout as soon as it is there, and nothing but the result."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TextIO

import click
from deepfake_client import DeepfakeError, Failure, ImageLimits, PolicyMismatchError, Verdict
from deepfake_client._images import list_files
from deepfake_client.preprocessing import Decoding

from .console import fail, image_bar, writable_stdout
from .options import GivenPath, Server, concurrency_option, decoding_option, file_option, server_options

ERROR = "error"
_DECISION_WIDTH = len("Deepfake")  # the longest one


class Writer:
    """Writes results one by one; `close` ends what was begun. `labels` are those of the model's classes, by index."""

    def __init__(self, stream: TextIO, labels: Sequence[str], *, decisions: bool) -> None:
        self._stream, self._labels, self._decisions = stream, labels, decisions
        self._begun = False

    def write(self, result: Verdict | Failure) -> None:
        """One JSON object a line."""
        self._stream.write(json.dumps(result.to_dict()) + "\n")

    def close(self) -> None:
        """Write what follows the last one."""


class TableWriter(Writer):
    """Columns for a person: label, score, decision, source. The source comes last, as it may be long."""

    def write(self, result: Verdict | Failure) -> None:
        if not self._begun:
            self._line("label", "score", "decision", "source")
            self._begun = True
        if isinstance(result, Verdict):
            self._line(result.label, f"{result.score:6.4f}", result.decision or "-", result.source or "-")
        else:
            text = str(result.error)
            if result.source and result.source not in text:
                text = f"{result.source}: {text}"
            self._line(ERROR, "-", "-", text)

    def _line(self, label: str, score: str, decision: str, text: str) -> None:
        width = max(map(len, [*self._labels, ERROR]))
        decided = f"{decision:{_DECISION_WIDTH}}  " if self._decisions else ""
        self._stream.write(f"{label:{width}}  {score:6}  {decided}{_printable(text)}\n")


class JsonWriter(Writer):
    """One JSON array, an object a line."""

    def write(self, result: Verdict | Failure) -> None:
        self._stream.write(f"{',' if self._begun else '['}\n  {json.dumps(result.to_dict())}")
        self._begun = True

    def close(self) -> None:
        self._stream.write("\n]\n" if self._begun else "[]\n")


class CsvWriter(Writer):
    """A header, then a row each: source, label, a score per label, model, model_version, decision, error."""

    def __init__(self, stream: TextIO, labels: Sequence[str], *, decisions: bool) -> None:
        super().__init__(stream, labels, decisions=decisions)
        decision = ["decision"] if decisions else []
        columns = ["source", "label", *labels, "model", "model_version", *decision, "error"]
        self._rows = csv.DictWriter(stream, columns, lineterminator="\n")
        self._rows.writeheader()

    def write(self, result: Verdict | Failure) -> None:
        row = result.to_dict()
        self._rows.writerow({**row.pop("scores", {}), **row})


#: By the name that --format takes.
WRITERS: dict[str, type[Writer]] = {"table": TableWriter, "json": JsonWriter, "jsonl": Writer, "csv": CsvWriter}


def _printable(text: str) -> str:
    # A file name may hold anything but a slash, also what steers a terminal.
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


class _ImagePath(GivenPath):
    """The same, or `-` for an image on the standard input."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return STDIN if value == "-" else super().convert(value, param, ctx)


#: Told from a file of this name, `./-`, by its identity.
STDIN = Path("-")


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=_ImagePath())
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
@decoding_option
@file_option(
    "--policy", "Written by `deepfake calibrate`; adds a decision to each verdict: Deepfake, Real one or unsure."
)
def command(
    paths: tuple[Path, ...],
    server: Server,
    format_name: str,
    concurrency: int,
    decoding: Decoding,
    policy: Path | None,
) -> None:
    """Tell for each image, and each file of each folder, whether it is a deepfake.

    The PATH - stands for one image on the standard input. Exits with 0 when every file got a verdict, with 1 when some did not.
    """
    if sum(path is STDIN for path in paths) > 1:
        raise click.UsageError("- is given twice, and the standard input can be read only once")
    stdout = writable_stdout()
    try:
        with server.ready_client(policy=policy, decoding=decoding) as client:
            writer = WRITERS[format_name](stdout, client.model_info().labels, decisions=policy is not None)
            total, failed = _write(
                client.classify_many(map(_image, _files(paths)), concurrency=concurrency), writer, paths
            )
    except DeepfakeError as error:
        fail(str(error))
    if total == 0:
        fail(f"{', '.join(map(str, paths))}: no files in it")
    sys.exit(1 if failed else 0)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    return (file for path in paths for file in ([path] if path is STDIN else list_files(path)))


def _image(file: Path) -> Path | BytesIO:
    """What the client takes. The standard input is read here, in the main thread, so that Ctrl-C ends it."""
    if file is not STDIN:
        return file
    if sys.stdin is None:
        fail("there is no standard input to read from")
    try:
        content = BytesIO(sys.stdin.buffer.read(ImageLimits().max_bytes + 1))
    except OSError as error:
        fail(f"the standard input cannot be read: {error.strerror}")
    content.name = str(file)
    return content


def _write(results: Iterable[Verdict | Failure], writer: Writer, paths: Sequence[Path]) -> tuple[int, int]:
    """Write each result as it comes; how many there were, and how many of them are failures."""
    total = failed = 0
    with image_bar("Classifying", sum(1 for _ in _files(paths)) if sys.stderr.isatty() else None) as advance:
        for result in results:
            if isinstance(result, Failure) and isinstance(result.error, PolicyMismatchError):
                writer.close()
                fail(result.error.reason)  # what is wrong with every file is told once
            total += 1
            failed += isinstance(result, Failure)
            writer.write(result)
            sys.stdout.flush()
            advance()
        writer.close()
    return total, failed
