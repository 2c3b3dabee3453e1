"""How far a long command is, on a terminal; silent in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from .console import stderr


class StepProgress:
    """A context manager that shows one line per step, with a spinner, a clock, and the parts of it that are done."""

    def __init__(self) -> None:
        self._progress = _display()
        self._task: TaskID | None = None
        self._parts = 0

    def step(self, description: str) -> None:
        """A step begins, and the one before it is done."""
        self._finish()
        self._parts = 0
        self._task = self._progress.add_task(description, total=None, parts="")

    def advance(self) -> None:
        """A part of the step is done."""
        if self._task is not None:
            self._parts += 1
            self._progress.update(self._task, parts=f" ({self._parts} done)")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to another library's progress bars."""
        self._finish()
        self._progress.stop()
        try:
            yield
        finally:
            self._progress, self._task = _display(), None
            self._progress.start()

    def __enter__(self) -> StepProgress:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self._progress.stop()

    def _finish(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=1, completed=1)


def image_progress() -> Progress:
    """A bar of the images that are done; it goes when it is complete."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr,
        disable=not sys.stderr.isatty(),
        transient=True,
        # On one and the same terminal the lines have to go above the bar.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )


@contextmanager
def image_bar(description: str, count: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Such a bar for one thing that is done to `count()` images; what is to be called for each."""
    with image_progress() as progress:
        task = progress.add_task(description, total=None if progress.disable else count())
        yield partial(progress.advance, task)


def _display() -> Progress:
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}{task.fields[parts]}", markup=False),
        TimeElapsedColumn(),
        console=stderr,
        disable=not sys.stderr.isatty(),
    )
