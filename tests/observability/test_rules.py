"""The rules: valid for Prometheus and its operator, tested alert by alert, and each with a runbook."""

from __future__ import annotations

import itertools
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.observability.prometheus import CPU_OBJECTIVES
from tests.support.programs import require_program
from tests.support.project import ROOT
from tests.support.rendering import KUBECTL
from tests.support.rules_files import (
    OBSERVABILITY,
    SCRAPE_2_72,
    alerts,
    as_on_a_gpu,
    cpu_objectives,
    panel_expressions,
    promtool,
    rule_resources,
    rules,
    write_rules,
)

CASES = sorted((Path(__file__).parent / "rules").glob("*.test.yaml"))
RUNBOOK_PARTS = ["Means", "Look at", "Do"]


@pytest.mark.slow
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    promtool("check", "rules", *map(str, write_rules(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".test.yaml"))
def test_alerts_fire_when_they_should_and_only_then(path: Path, shape: str, tmp_path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    write_rules(tmp_path)  # promtool looks for them beside the test
    for case in document["tests"]:
        if shape == "gpu":
            case["input_series"] = as_on_a_gpu(case["input_series"])
        for check in case["alert_rule_test"]:
            for expected in check["exp_alerts"]:
                fixed = alerts()[check["alertname"]]["annotations"]
                expected["exp_annotations"] = {**fixed, "description": expected.pop("description")}
    complete = tmp_path / path.name
    complete.write_text(yaml.safe_dump(document, sort_keys=False))
    promtool("test", "rules", str(complete))


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_stays_silent() -> None:
    fires, silent = set(), set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                (fires if check["exp_alerts"] else silent).add(check["alertname"])
    assert fires == silent == set(alerts())


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_tells_what_is_wrong_and_where_to_read_on(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert "$value" in rule["annotations"]["description"]
    assert "{{" not in rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"runbooks.md#{name.lower()}"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    text = (OBSERVABILITY / "runbooks.md").read_text()
    sections = {part.split("\n", 1)[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}
    assert {name for name in sections if name.startswith("Triton")} == set(alerts())
    for name in alerts():
        assert re.findall(r"^\*\*(.+?)\.\*\*", sections[name], re.MULTILINE) == RUNBOOK_PARTS, name


def test_recorded_series_are_named_by_level_metric_and_operations_and_each_is_used() -> None:
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    assert [name for name in recorded if not re.fullmatch(r"[a-z_]+:[a-z0-9_]+:[a-z0-9_]+", name)] == []
    assert len(recorded) == len(set(recorded))
    expressions = [rule["expr"] for rule in rules()] + panel_expressions()
    assert {name for text in expressions for name in re.findall(r"\w+:\w+:\w+", text)} == set(recorded)


def test_triton_exports_what_rules_and_panels_look_at(triton: EmbeddedTriton) -> None:
    expressions = [rule["expr"] for rule in rules()] + panel_expressions()
    named = {name for text in expressions for name in re.findall(r"(?<!:)\bnv_\w+(?!:)", text)}
    assert len(named) > 5
    assert named - exported(SCRAPE_2_72.read_text()) == set()
    # The histogram is of a later release than the embedded one.
    missing = named - exported(urllib.request.urlopen(triton.metrics_url).read().decode())
    assert all(name.startswith("nv_inference_first_response_histogram_ms_") for name in missing)


def exported(metrics: str) -> set[str]:
    return set(re.findall(r"^(\w+)\{", metrics, re.MULTILINE))


@pytest.mark.parametrize(
    ("objectives", "milliseconds"),
    [(rule_resources()["objectives-prometheusrule.yaml"], "500"), (cpu_objectives(), "5000")],
    ids=["gpu", "cpu"],
)
def test_the_latency_objective_is_a_bucket_that_triton_has(objectives: dict[str, Any], milliseconds: str) -> None:
    recorded = {rule["record"]: rule["expr"] for rule in objectives["spec"]["groups"][0]["rules"]}
    (pattern,) = re.findall(r'le=~"([^"]+)"', recorded["deepfake:slow_requests:total"])
    buckets = set(re.findall(r'le="([^"]+)"', SCRAPE_2_72.read_text()))
    assert [bucket for bucket in buckets if re.fullmatch(pattern, bucket)] == [milliseconds]
    assert re.fullmatch(pattern, f"{milliseconds}.0")


@pytest.mark.parametrize("name", sorted(rule_resources()))
def test_the_operator_accepts_the_rules(name: str) -> None:
    definition = ROOT.parent / "shared" / "crds" / "monitoring.coreos.com_prometheusrules.yaml"
    if not definition.is_file():
        pytest.skip(f"the operator's definition of a PrometheusRule is not at {definition}")
    schema = yaml.safe_load(definition.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.Draft7Validator(closed(schema)).validate(rule_resources()[name])


def closed(schema: Any) -> Any:
    """`schema` without room for fields that it does not name: the operator drops those silently."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema:
        result.setdefault("additionalProperties", False)
    return result


def test_kustomize_gives_every_alert_the_address_of_its_runbook() -> None:
    rendered = subprocess.run(
        [require_program("kubectl", instead=KUBECTL), "kustomize", str(OBSERVABILITY)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert rendered.returncode == 0, rendered.stderr
    resources = list(yaml.safe_load_all(rendered.stdout))
    urls = re.findall(r"runbook_url: (\S+)", rendered.stdout)
    assert sorted(urls) == sorted(
        f"https://git.example.com/deepfake-vs-real/deploy/observability/runbooks.md#{name.lower()}" for name in alerts()
    )
    assert [resource["kind"] for resource in resources].count("PrometheusRule") == len(rule_resources())
    dashboards = [resource for resource in resources if resource["kind"] == "ConfigMap"]
    assert [config["metadata"]["labels"]["grafana_dashboard"] for config in dashboards] == ["1"]


def test_the_limit_of_a_queue_is_that_of_the_model_repository() -> None:
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    limits = {
        "config.pbtxt": recorded["deepfake:queue_limit:requests"],
        "configs/cpu.pbtxt": f"vector({CPU_OBJECTIVES['deepfake:queue_limit:requests']:.0f})",
    }
    for model, (name, limit) in itertools.product(("deepfake_vs_real", "image_decoder"), limits.items()):
        text = (ROOT / "model_repository" / model / name).read_text()
        assert [f"vector({size})" for size in re.findall(r"max_queue_size: (\d+)", text)] == [limit], (model, name)


def test_the_servers_are_told_to_keep_the_histogram_that_the_rules_read() -> None:
    deployment = yaml.safe_load((ROOT / "deploy/kubernetes/base/triton-deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "--metrics-config=histogram_latencies=true" in container["args"]
