"""What a measurement ran on, and who used the processors: the server, the load generators, and others."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import psutil
from deepfake_client import DeepfakeClient


def cores() -> int:
    """Processors that a process here may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1


def command_line(module: str) -> str:
    """How this program was called, without the paths of this machine, which say nothing about the result."""
    paths = argparse.ArgumentParser(add_help=False)
    paths.add_argument("--output")
    paths.add_argument("--repository")
    return shlex.join(["python", "-m", module, *paths.parse_known_args()[1]])


def processor_name() -> str:
    """The processor's model name, where the system tells it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def weights(client: DeepfakeClient) -> str:
    """What the server computes with, in a few words."""
    provenance = client.provenance()
    if provenance is None:
        return "weights unknown"
    return f"{'stand-in weights' if provenance.stand_in else provenance.model_id}, {provenance.precision}"


def family(pid: int) -> list[psutil.Process]:
    """A process and its descendants, as far as they run."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


class Usage:
    """Cores kept busy since it was made.

    Args:
        server: pid of the server; its child processes count with it. None when it is not on this machine.
        generators: pids of the load generators.
    """

    def __init__(self, server: int | None, generators: Sequence[int]) -> None:
        self._server = [] if server is None else family(server)
        self._ours = [psutil.Process(pid) for pid in (os.getpid(), *generators)]
        self.cores()

    def cores(self) -> tuple[float | None, float, list[float]]:
        """Of the server, of everybody but it and us, and of each load generator; psutil counts from the last call on."""
        busy = psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1)
        server = sum(_cores(each) for each in self._server)
        own, *generators = (_cores(each) for each in self._ours)
        others = max(busy - server - own - sum(generators), 0.0)
        return (server if self._server else None), others, generators


def _cores(process: psutil.Process) -> float:
    try:
        return float(process.cpu_percent()) / 100
    except psutil.Error:
        return 0.0
