"""Whom an export tells of its steps."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Told of each step; what it shows, and where, is its own affair."""

    def step(self, description: str) -> None:
        """A step begins, and the one before it is done."""

    def advance(self) -> None:
        """A part of the current step is done."""

    def aside(self) -> AbstractContextManager[object]:
        """Leave the terminal to another library's progress bars."""
