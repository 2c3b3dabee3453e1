"""Keeps the notes and progress bars of the libraries where they belong."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import huggingface_hub.utils
import transformers


@contextlib.contextmanager
def silent_transformers() -> Iterator[None]:
    """Its notes on token ids and loss types do not concern an image classifier, and the export draws its own progress."""
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
