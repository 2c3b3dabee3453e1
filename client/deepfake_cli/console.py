"""What commands write: the result to stdout; to stderr a line for an error, and on a terminal how far they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from io import TextIOWrapper
from typing import NoReturn, TextIO

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

#: Exit status of a command that Ctrl-C ended, as shells have it.
INTERRUPTED = 130
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str, *, status: int = 1) -> NoReturn:
    """End the command with one line on stderr."""
    say(f"deepfake: {message}")
    sys.exit(status)


def say(message: str) -> None:
    """One line on stderr, as it is: a file name may hold what looks like markup."""
    stderr.print(" ".join(message.split("\n")), markup=False)


def write_in_any_encoding() -> None:
    """Let stdout and stderr escape what their encoding cannot say: file names, labels, Δ, ✓."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None without one
            stream.reconfigure(errors="backslashreplace")


def tell(result: str) -> None:
    """The result, on stdout. Without a file named, click writes UTF-8 where ASCII is asked for."""
    click.echo(result, sys.stdout)


def writable_stdout() -> TextIO:
    """The standard output, for a command that is of no use without one."""
    if sys.stdout is None:
        fail("there is no standard output to write to")
    return sys.stdout


def waiting(description: str) -> AbstractContextManager[object]:
    """A spinner while something takes seconds; nothing in a pipe."""
    return stderr.status(description) if stderr.is_terminal else nullcontext()


class StepProgress:
    """A context manager that shows the current step, and how many of its parts are done; nothing in a pipe."""

    def __init__(self) -> None:
        self._status = stderr.status("")
        self._step, self._done = "", 0

    def step(self, description: str) -> None:
        """A step begins, and the one before it is done."""
        self._step, self._done = escape(description), 0
        self._status.update(self._step)
        if stderr.is_terminal:
            self._status.start()

    def advance(self) -> None:
        """A part of the step is done."""
        self._done += 1
        self._status.update(f"{self._step} ({self._done} done)")

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if stderr.is_terminal:
            self._status.stop()


@contextmanager
def image_bar(description: str, count: int | None) -> Iterator[Callable[[], None]]:
    """A bar of `count` images on a terminal, which goes when it is complete; what is to be called for each image."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr,
        disable=not sys.stderr.isatty(),
        transient=True,
        # On one and the same terminal the lines have to go above the bar.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    ) as progress:
        yield partial(progress.advance, progress.add_task(description, total=count))
