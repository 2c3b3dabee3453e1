"""Figures from Triton's metrics endpoint."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable

_SETTLING_SECONDS = 10


def metric(metrics_url: str, name: str, model: str = "deepfake_vs_real") -> float:
    """Sum of a metric over the versions and instances of a model."""
    with urllib.request.urlopen(metrics_url) as response:
        text = response.read().decode()
    pattern = rf'^{name}\{{[^}}]*model="{model}"[^}}]*\}} (\S+)$'
    return sum(float(value) for value in re.findall(pattern, text, re.MULTILINE))


def settled(read: Callable[[], float], expected: float) -> float:
    """What `read` gives once it is `expected`, or at last: Triton counts a request a moment after it was answered."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    while (value := read()) < expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return value
