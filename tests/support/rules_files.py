"""The rules of deploy/observability as Prometheus reads them, and the expressions of the dashboard."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.programs import require_program
from tests.support.project import ROOT

OBSERVABILITY = ROOT / "deploy" / "observability"
SCRAPE_2_72 = ROOT / "tests" / "observability" / "metrics-2.72-cpu.txt"


def promtool(*arguments: str) -> None:
    program = require_program("promtool", "prometheus")
    run = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


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


def cpu_objectives() -> dict[str, Any]:
    """objectives-prometheusrule.yaml as the component monitoring-cpu patches it."""
    component = ROOT / "deploy" / "kubernetes" / "components" / "monitoring-cpu" / "kustomization.yaml"
    resource = rule_resources()["objectives-prometheusrule.yaml"]
    for operation in yaml.safe_load(yaml.safe_load(component.read_text())["patches"][0]["patch"]):
        _, _, group, _, rule, field = operation["path"].strip("/").split("/")
        target = resource["spec"]["groups"][int(group)]["rules"][int(rule)]
        if operation["op"] == "test":
            assert target[field] == operation["value"]
        else:
            target[field] = operation["value"]
    return resource


def write_rules(folder: Path, *, cpu: bool = False) -> list[Path]:
    """The `spec` of each PrometheusRule, which is what Prometheus takes, as a file of its own in `folder`."""
    resources = rule_resources()
    if cpu:
        resources["objectives-prometheusrule.yaml"] = cpu_objectives()
    paths = []
    for name, resource in resources.items():
        path = folder / name
        path.write_text(yaml.safe_dump(resource["spec"], sort_keys=False))
        paths.append(path)
    return paths


#: What Triton counts for a model, and not for one of its instances (its core, read at 2.72).
_OF_THE_MODEL = ("nv_inference_pending", "nv_inference_request_failure", "nv_inference_first_response")


def as_on_a_gpu(series: list[dict[str, str]]) -> list[dict[str, str]]:
    """promtool's `series` with the twin that each of Triton's has on a GPU; the value is on one side, the other stays 0."""
    twins = []
    for each in series:
        if not each["series"].startswith("nv_inference_"):
            twins.append(each)
            continue
        instance = each["series"].replace("{", '{gpu_uuid="GPU-1",', 1)
        sides = [each["series"], instance]
        if not each["series"].startswith(_OF_THE_MODEL):
            sides.reverse()
        twins += [{"series": sides[0], "values": each["values"]}, {"series": sides[1], "values": "0+0x400"}]
    return twins
