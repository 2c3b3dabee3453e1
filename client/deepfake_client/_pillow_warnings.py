"""Keeps Pillow's warnings about damaged files from reaching a service's log, or from becoming exceptions there."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ENTRY: Any = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_lock = threading.Lock()
_decoding = 0


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Ignores warnings raised inside Pillow while at least one thread is in this block.

    What Pillow warns of (a tag that is too long, a size it finds suspicious) is judged by this package itself.
    `warnings.catch_warnings` is no choice: it swaps the filters of the whole process, and two threads that leave it
    in the wrong order leave the wrong filters behind. Here one entry, which matches Pillow's modules alone, comes
    and goes. `warnings.filterwarnings` would add the same entry, but makes Python forget which warnings it has
    already shown once, at each image.
    """
    global _decoding
    filters: Any
    with _lock:
        _decoding += 1
        filters = warnings.filters
        if not any(entry is _ENTRY for entry in filters):
            filters.insert(0, _ENTRY)
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            if _decoding == 0:
                filters = warnings.filters
                filters[:] = [entry for entry in filters if entry is not _ENTRY]
