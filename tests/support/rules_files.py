"""The rules of deploy/observability as Prometheus reads them, and the expressions of the dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.support.project import ROOT

OBSERVABILITY = ROOT / "deploy" / "observability"


def rule_resources() -> dict[str, dict[str, Any]]:
    """File name → PrometheusRule."""
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted(OBSERVABILITY.glob("*-prometheusrule.yaml"))}


def rules() -> list[dict[str, Any]]:
    """All of them, alerts and recorded series."""
    groups = [group for resource in rule_resources().values() for group in resource["spec"]["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Alert name → rule."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panel_expressions() -> list[str]:
    """Those of the dashboard."""
    panels = json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def write_rules(folder: Path) -> list[Path]:
    """The `spec` of each PrometheusRule, which is what Prometheus takes, as a file of its own in `folder`."""
    paths = []
    for name, resource in rule_resources().items():
        path = folder / name
        path.write_text(yaml.safe_dump(resource["spec"], sort_keys=False))
        paths.append(path)
    return paths
