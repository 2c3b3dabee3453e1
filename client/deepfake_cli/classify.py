"""`deepfake classify`: each verdict on stdout as soon as it is there, and nothing but the result."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import click
from deepfake_client import DeepfakeError, Failure, ImageLimits, PolicyMismatchError, Verdict
from deepfake_client._images import list_files
from deepfake_client.preprocessing import Decoding

from .console import fail, image_bar, writable_stdout
from .options import GivenPath, Server, concurrency_option, decoding_option, file_option, server_options

ERROR = "error"
_Results = Iterable[Verdict | Failure]


def _table(results: _Results, labels: Sequence[str], decisions: bool) -> Iterator[str]:
    """Columns for a person: label, score, decision, source. The source comes last, as it may be long."""
    width = max(map(len, [*labels, ERROR]))

    def line(label: str, score: str, decision: str, text: str) -> str:
        decided = f"{decision:{len('Deepfake')}}  " if decisions else ""  # the longest one
        return f"{label:{width}}  {score:6}  {decided}{_printable(text)}\n"

    for number, result in enumerate(results):
        head = "" if number else line("label", "score", "decision", "source")
        if isinstance(result, Verdict):
            yield head + line(result.label, f"{result.score:6.4f}", result.decision or "-", result.source or "-")
        else:
            text = str(result.error)
            known = not result.source or result.source in text
            yield head + line(ERROR, "-", "-", text if known else f"{result.source}: {text}")


def _json(results: _Results, *_: Any) -> Iterator[str]:
    """One JSON array, an object a line."""
    opening = "["
    for result in results:
        yield f"{opening}\n  {json.dumps(result.to_dict())}"
        opening = ","
    yield "[]\n" if opening == "[" else "\n]\n"


def _json_lines(results: _Results, *_: Any) -> Iterator[str]:
    """One JSON object a line."""
    return (json.dumps(result.to_dict()) + "\n" for result in results)


def _csv(results: _Results, labels: Sequence[str], decisions: bool) -> Iterator[str]:
    """A header, then a row each: source, label, a score per label, model, model_version, decision, error."""
    decision = ["decision"] if decisions else []
    text = StringIO()
    rows = csv.DictWriter(
        text, ["source", "label", *labels, "model", "model_version", *decision, "error"], lineterminator="\n"
    )
    rows.writeheader()
    for result in results:
        row = result.to_dict()
        rows.writerow({**row.pop("scores", {}), **row})
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()  # the header, where there was no result


#: By the name that --format takes: results, labels by class and whether there are decisions → what to write, bit by bit.
FORMATS: dict[str, Callable[..., Iterator[str]]] = {"table": _table, "json": _json, "jsonl": _json_lines, "csv": _csv}


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
    type=click.Choice(list(FORMATS)),
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
    writable_stdout()
    try:
        with server.ready_client(policy=policy, decoding=decoding) as client:
            labels = client.model_info().labels
            results = client.classify_many(map(_image, _files(paths)), concurrency=concurrency)
            total, failed = _write(results, format_name, labels, policy is not None, paths)
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


def _write(
    results: _Results, format_name: str, labels: Sequence[str], decisions: bool, paths: Sequence[Path]
) -> tuple[int, int]:
    """Write each result as it comes; how many there were, and how many of them are failures."""
    total = failed = 0
    refused: PolicyMismatchError | None = None

    def counted() -> Iterator[Verdict | Failure]:
        nonlocal total, failed, refused
        for result in results:
            if isinstance(result, Failure) and isinstance(result.error, PolicyMismatchError):
                refused = result.error
                return
            total += 1
            failed += isinstance(result, Failure)
            yield result
            advance()

    with image_bar("Classifying", sum(1 for _ in _files(paths)) if sys.stderr.isatty() else None) as advance:
        for text in FORMATS[format_name](counted(), labels, decisions):
            sys.stdout.write(text)
            sys.stdout.flush()
    if refused is not None:
        fail(refused.reason)  # what is wrong with every file is told once
    return total, failed
