"""Types of values on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

_UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class GivenPath(click.ParamType[Path]):
    """A path, existing or not; but not an empty word, which pathlib would take for the current folder."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; a usage error for an empty word."""
        if not str(value):
            self.fail("empty; is a variable not set?", param, ctx)
        return Path(value)


class Size(click.ParamType[int]):
    """`256MiB`, `1GB`, `1048576`, as bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes; a usage error for anything else."""
        match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(value).strip())
        if match is None or match[2].upper() not in _UNITS:
            self.fail(f"{value!r} is no size; write it like 256MiB or 1GB", param, ctx)
        return int(match[1]) * _UNITS[match[2].upper()]
