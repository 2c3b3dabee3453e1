"""The server's worker processes: one stub for each instance of a Python model.

Triton 2.51 does not start a stub again that died, and stays «ready» while every request to it fails
(server #7230, #8604). Whoever runs the server has to notice.
"""

from __future__ import annotations

from pathlib import Path


def dead_workers(pid: int) -> set[int]:
    """Process ids of the stubs of `tritonserver` process `pid` that ended and that it has not taken leave of.

    It does so at once with those that it ended itself, say with an old version of a model.
    """
    return {child for child in _children(pid) if _dead(child)}


def _children(pid: int) -> set[int]:
    children: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children.update(map(int, task.read_text().split()))
        except OSError:
            continue  # a thread that has just ended
    return children


def _dead(pid: int) -> bool:
    try:
        # The name in brackets may hold anything, also brackets.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state == "Z"
