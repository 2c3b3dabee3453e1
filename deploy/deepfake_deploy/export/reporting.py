"""What an export tells its caller: its steps and its errors, and nothing of the libraries below it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import huggingface_hub.utils
import transformers


class ExportError(Exception):
    """The checkpoint was not exported; what was in the repository before is still there.

    One line: the thing, the reason and the way out.
    """


class HubUnreachableError(ExportError):
    """The Hugging Face Hub did not answer. The one error that `make demo` goes on after."""


class Progress(Protocol):
    """Told of each step."""

    def step(self, description: str) -> None:
        """A step begins, and the one before it is done."""

    def advance(self) -> None:
        """A part of the current step is done."""

    def aside(self) -> AbstractContextManager[object]:
        """Leave the terminal to another library's progress bars."""


def one_line(error: BaseException) -> str:
    """Kind and message of what a library raised."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": .")


@contextlib.contextmanager
def silent_transformers() -> Iterator[None]:
    """No progress bars, and no notes on token ids and loss types, which do not concern an image classifier."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def hub_bars_on_terminals_only() -> Iterator[None]:
    """The Hub library draws its bars into pipes too, and logs each of its retries; the last one's error is enough."""
    logging = huggingface_hub.utils.logging
    verbosity, disabled = logging.get_verbosity(), huggingface_hub.utils.are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if not disabled:
            huggingface_hub.utils.enable_progress_bars()
