"""Queues that a test can fill."""

from __future__ import annotations

from pathlib import Path

QUEUE_LIMIT = 8


def limit_queues(repository: Path, requests: int) -> None:
    """Let each queue of the models in `repository` hold that many requests, on a CPU."""
    for path in repository.glob("*/configs/cpu.pbtxt"):
        path.write_text(path.read_text().replace("max_queue_size: 256", f"max_queue_size: {requests}"))
