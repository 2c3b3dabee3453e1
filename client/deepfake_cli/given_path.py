"""Paths on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class GivenPath(click.ParamType[Path]):
    """A path, existing or not; but not an empty word, which pathlib would take for the current folder."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; a usage error for an empty word."""
        if not str(value):
            self.fail("empty; is a variable not set?", param, ctx)
        return Path(value)
