"""The rules of deploy/observability, taken out of their Kubernetes resources for a Prometheus without an operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

#: Of a machine without a GPU, as components/monitoring-cpu has it. The latency objective has no effect on Triton 2.51.
CPU_OBJECTIVES = {"deepfake:queue_limit:requests": 256.0}

_WINDOW = re.compile(r"\[(\w+)\]")
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class PrometheusError(Exception):
    """Prometheus cannot run or answer, or has no rules: one sentence with the thing, the reason and the way out."""


def read_groups(folder: Path, objectives: Mapping[str, float] | None = None, faster: int = 1) -> list[dict[str, Any]]:
    """The groups of every *-prometheusrule.yaml in `folder`.

    Args:
        objectives: recorded series → value in place of that of objectives-prometheusrule.yaml.
        faster: divides every window, `for` and interval; the expressions stay as they are.

    Raises:
        PrometheusError: there is none.
    """
    paths = sorted(folder.glob("*-prometheusrule.yaml"))
    if not paths:
        raise PrometheusError(f"{folder}: no *-prometheusrule.yaml in it; name the project's deploy/observability")
    groups = [group for path in paths for group in yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["groups"]]
    for group in groups:
        group["interval"] = shortened(group["interval"], faster)
        for rule in group["rules"]:
            if objectives and rule.get("record") in objectives:
                rule["expr"] = f"vector({objectives[rule['record']]})"
            rule["expr"] = _WINDOW.sub(lambda window: f"[{shortened(window[1], faster)}]", rule["expr"])
            if "for" in rule:
                rule["for"] = shortened(rule["for"], faster)
    return groups


def shortened(duration: str, faster: int) -> str:
    """`duration` ("5m") divided by `faster`, in milliseconds."""
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", duration).groups()  # type: ignore[union-attr]
    return f"{int(number) * _MILLISECONDS[unit] // faster}ms"
