"""The steps of a long command: a spinner and a clock each on a terminal, silent in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from .console import stderr


class StepProgress:
    """A context manager that shows one line per step, with the parts of it that are done."""

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


def _display() -> Progress:
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}{task.fields[parts]}", markup=False),
        TimeElapsedColumn(),
        console=stderr,
        disable=not sys.stderr.isatty(),
    )
