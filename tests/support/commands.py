"""`deepfake evaluate` in this process, which has imported what it needs, and as a process of its own."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfake_cli.app import deepfake

COMMAND = [sys.executable, "-m", "deepfake_cli", "evaluate"]


@dataclass
class Run:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


def evaluate(*arguments: Any) -> Run:
    """Run the command in this process; its status is the one the process would have."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    status: Any = None
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            deepfake.main(["evaluate", *map(str, arguments)], standalone_mode=False)
        except SystemExit as end:
            status = end.code
    return Run(int(status or 0), *(stream.buffer.getvalue().decode() for stream in (stdout, stderr)))


def contents(folder: Path) -> dict[str, bytes]:
    """Name and content of each result in a folder; the answers, which are no result, are left out."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "answers.jsonl"}
