"""How many processors a process may use: those it may run on, and what the container's limit is worth."""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus(cpu_max: Path = CPU_MAX) -> int:
    """Processors this process may run on, but no more than its cgroup's quota, rounded up as Kubernetes rounds.

    torch only looks at the first: in a container limited to 4 CPUs on a node with 64 it starts 64 threads, which use
    up the quota of each period at once and then all stand still.

    Args:
        cpu_max: quota and period in microseconds, or "max" for no quota (cgroups of version 2).
    """
    affinity = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return max(1, min(affinity, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return affinity  # no quota, or a kernel without cgroups of version 2
