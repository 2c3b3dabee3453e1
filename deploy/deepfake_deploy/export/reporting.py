"""What an export tells its caller: its steps and its errors, and nothing of the libraries below it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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


def one_line(error: BaseException) -> str:
    """Kind and message of what a library raised."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": .")


@contextlib.contextmanager
def silent_transformers() -> Iterator[None]:
    """No bars and no notes of transformers and the Hub library: on token ids, loss types, each retry."""
    logging = transformers.utils.logging
    levels = [(each, each.get_verbosity()) for each in (logging, huggingface_hub.utils.logging)]
    bars = logging.is_progress_bar_enabled()
    for library, _ in levels:
        library.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()  # the Hub library's too
    try:
        yield
    finally:
        for library, level in levels:
            library.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
