"""What goes to stderr: one line for an error, progress on a terminal and nowhere else."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import NoReturn

from rich.console import Console

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


def waiting(description: str) -> AbstractContextManager[object]:
    """A spinner while something takes seconds; nothing in a pipe."""
    return stderr.status(description) if stderr.is_terminal else nullcontext()
