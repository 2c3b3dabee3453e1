"""The command line in this process, which has imported what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from deepfake_cli.app import deepfake as command_group


def deepfake(*arguments: Any) -> Result:
    """Run a command; `exit_code`, `stdout` and `stderr` are those of the process that it would be."""
    return CliRunner().invoke(command_group, [str(each) for each in arguments], catch_exceptions=False)


def evaluate(*arguments: Any) -> Result:
    """Run `deepfake evaluate`."""
    return deepfake("evaluate", *arguments)


def contents(folder: Path) -> dict[str, bytes]:
    """Name and content of each result in a folder; the answers, which are no result, are left out."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "answers.jsonl"}
