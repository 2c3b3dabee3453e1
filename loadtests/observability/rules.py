"""The rules of deploy/observability, taken out of their Kubernetes resources for a Prometheus without an operator."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from .api import PrometheusError

Group: TypeAlias = dict[str, Any]

#: What objectives-prometheusrule.yaml holds for GPUs, as it should be on a machine without one: max_queue_size of
#: configs/cpu.pbtxt, and a mean time in the server that forty waiting images reach (at 120 ms an image).
CPU_OBJECTIVES = {"deepfake:queue_limit:requests": 256.0, "deepfake:latency_objective:seconds": 5.0}

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_WINDOW = re.compile(r"\[(\d+(?:ms|s|m|h|d))\]")
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def read_groups(folder: Path, objectives: Mapping[str, float], faster: int) -> list[Group]:
    """The groups of every *-prometheusrule.yaml in `folder`.

    Args:
        folder: deploy/observability.
        objectives: recorded series → value in place of that of objectives-prometheusrule.yaml.
        faster: divides every window, `for` and interval; the expressions stay as they are.

    Raises:
        PrometheusError: there is none.
    """
    paths = sorted(folder.glob("*-prometheusrule.yaml"))
    if not paths:
        raise PrometheusError(f"{folder}: no *-prometheusrule.yaml in it; name the project's deploy/observability")
    groups = [group for path in paths for group in yaml.safe_load(path.read_text())["spec"]["groups"]]
    return [_changed(group, objectives, faster) for group in groups]


def _changed(group: Group, objectives: Mapping[str, float], faster: int) -> Group:
    group = copy.deepcopy(group)
    group["interval"] = shortened(group["interval"], faster)
    for rule in group["rules"]:
        if rule.get("record") in objectives:
            rule["expr"] = f"vector({objectives[rule['record']]})"
        rule["expr"] = _WINDOW.sub(lambda match: f"[{shortened(match[1], faster)}]", rule["expr"])
        if "for" in rule:
            rule["for"] = shortened(rule["for"], faster)
    return group


def shortened(duration: str, faster: int) -> str:
    """`duration` ("5m") divided by `faster`, in milliseconds."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"{duration}: not one number with one unit, as 30s or 5m")
    return f"{int(match[1]) * _MILLISECONDS[match[2]] // faster}ms"
