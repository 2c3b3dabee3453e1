"""The rules of deploy/observability, as Prometheus reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.project import ROOT

OBSERVABILITY = ROOT / "deploy" / "observability"


def rule_resources() -> dict[str, dict[str, Any]]:
    """File name → PrometheusRule."""
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted(OBSERVABILITY.glob("*-prometheusrule.yaml"))}


def alerts() -> dict[str, dict[str, Any]]:
    """Alert name → rule."""
    rules = [
        rule
        for resource in rule_resources().values()
        for group in resource["spec"]["groups"]
        for rule in group["rules"]
    ]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


def write_rules(folder: Path) -> list[Path]:
    """The `spec` of each PrometheusRule, which is what Prometheus takes, as a file of its own in `folder`."""
    paths = []
    for name, resource in rule_resources().items():
        path = folder / name
        path.write_text(yaml.safe_dump(resource["spec"], sort_keys=False))
        paths.append(path)
    return paths
