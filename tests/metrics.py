"""Figures from Triton's metrics endpoint."""

from __future__ import annotations

import re
import urllib.request


def metric(metrics_url: str, name: str, model: str = "deepfake_vs_real") -> float:
    """Sum of a metric over the versions and instances of a model."""
    with urllib.request.urlopen(metrics_url) as response:
        text = response.read().decode()
    pattern = rf'^{name}\{{[^}}]*model="{model}"[^}}]*\}} (\S+)$'
    return sum(float(value) for value in re.findall(pattern, text, re.MULTILINE))
