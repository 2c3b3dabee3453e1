"""Who uses the machine's processors: the server, the load generators, and whoever else is there."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import psutil


def cores() -> int:
    """Processors that a process here may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1


def processor_name() -> str:
    """The processor's model name, where the system tells it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def server_pid(host: str, port: int) -> int | None:
    """The process on this machine that listens on the port; None when it is elsewhere, or hidden from this user."""
    if not _is_here(host):
        return None
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.AccessDenied, OSError):
        return None
    listening = (each for each in connections if each.status == psutil.CONN_LISTEN and each.laddr)
    return next((each.pid for each in listening if each.laddr.port == port and each.pid), None)


class Usage:
    """Processor time in seconds used since the first look: by the server, and by everybody but it and us.

    Args:
        server: pid of the server; its child processes count with it. None when it is not on this machine.
        generators: pids of the load generators; this process counts with them.
    """

    def __init__(self, server: int | None, generators: Sequence[int]) -> None:
        self._server = server
        self._ours = [os.getpid(), *generators]
        self._began = self._read()

    def seconds(self) -> tuple[float | None, float]:
        """(server, others)."""
        server, ours, busy = (now - before for now, before in zip(self._read(), self._began, strict=True))
        return (server if self._server is not None else None), max(busy - server - ours, 0.0)

    def _read(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        busy = times.user + times.system + sum(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq"))
        server = _tree_seconds(self._server) if self._server is not None else 0.0
        return server, sum(map(_process_seconds, self._ours)), busy


def _tree_seconds(pid: int) -> float:
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        children = []
    return _process_seconds(pid) + sum(_process_seconds(child.pid) for child in children)


def _process_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _is_here(host: str) -> bool:
    try:
        asked = {found[4][0] for found in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:
        return False
    ours = {address.address for each in psutil.net_if_addrs().values() for address in each}
    return bool(asked & ours) or any(str(address).startswith("127.") for address in asked)
