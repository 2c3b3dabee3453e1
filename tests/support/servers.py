"""Servers of tests that are not about how a server stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepfake_deploy.embedded import EmbeddedTriton


@contextmanager
def running(repository: Path, **options: Any) -> Iterator[EmbeddedTriton]:
    """An `EmbeddedTriton` with these options, killed at the end: Triton takes five seconds to unload its models in order."""
    server = EmbeddedTriton(repository, **options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
