"""Which alerts fire in a whole situation: exactly those that should, on a CPU and, where every series has a twin, on a GPU.

The series are those of a real Triton 2.72 (metrics-2.72-cpu.txt), and grow by what that scrape counted in every minute.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.rules_files import SCRAPE_2_72, alerts, as_on_a_gpu, promtool, write_rules

CHANGE, LOOK, END = 60, 80, 90
"""Minutes: when the situation begins, when it is looked at, and when the series end."""
GROWS = "0+{value}x90"
STOPS = "0+{value}x60 {at_change}+0x30"
STARTS = "0+0x60 0+600x30"
CLASSIFIER = r'model="deepfake_vs_real"'
AROUND = {
    'up{job="deepfake-vs-real",namespace="deepfake",pod="triton-a"}': "1x90",
    'up{job="deepfake-vs-real",namespace="deepfake",pod="triton-b"}': "1x90",
    'kube_deployment_status_replicas_available{namespace="deepfake",deployment="triton"}': "2x90",
    'kube_pod_status_ready{namespace="deepfake",pod="triton-a",condition="true"}': "1x90",
    'kube_horizontalpodautoscaler_status_current_replicas{namespace="deepfake",horizontalpodautoscaler="triton"}': "2x90",
    'kube_horizontalpodautoscaler_spec_min_replicas{namespace="deepfake",horizontalpodautoscaler="triton"}': "2x90",
    'kube_horizontalpodautoscaler_spec_max_replicas{namespace="deepfake",horizontalpodautoscaler="triton"}': "10x90",
    'keda_scaled_object_errors_total{namespace="keda",exported_namespace="deepfake",scaledObject="triton"}': "0+0x90",
}


@dataclass(frozen=True)
class Situation:
    """What differs from a healthy replica `triton-a`; the last pattern that matches a series tells how it goes."""

    fires: set[str]
    changes: dict[str, str]


SITUATIONS = {
    "healthy": Situation(set(), {}),
    "no traffic": Situation(set(), {r"^nv_": "{value}+0x90", "pending": "0+0x90"}),
    "hanging": Situation(
        {"TritonModelHangs"},
        {rf"(success|duration|histogram|_count\{{).*{CLASSIFIER}": STOPS, rf"pending.*{CLASSIFIER}": "3+0x60 40+0x30"},
    ),
    "hanging until the queue is full": Situation(
        {"TritonModelHangs", "TritonQueueFull"},
        {
            rf"(success|duration|histogram|_count\{{).*{CLASSIFIER}": STOPS,
            rf"pending.*{CLASSIFIER}": "3+0x60 {limit}+0x30",
        },
    ),
    # What is refused is counted nowhere; what is answered has waited for the length of the queue.
    "overload": Situation(
        {"TritonQueueFull", "TritonLatencyBudgetBurnsFast"},
        {rf'bucket.*{CLASSIFIER}.*le="(100|500|2000|5000)"': STOPS, rf"pending.*{CLASSIFIER}": "3+0x60 {limit}+0x30"},
    ),
    "slow answers and room in the queue": Situation(
        {"TritonLatencyBudgetBurnsFast"}, {rf'bucket.*{CLASSIFIER}.*le="(100|500|2000|5000)"': STOPS}
    ),
    "a GPU's objective missed, a CPU's met": Situation(
        {"TritonLatencyBudgetBurnsFast"}, {rf'bucket.*{CLASSIFIER}.*le="(100|500)"': STOPS}
    ),
    "a model that fails": Situation(
        {"TritonErrorBudgetBurnsFast", "TritonModelFails"},
        {rf'failure.*{CLASSIFIER}.*"BACKEND"|failure.*"BACKEND".*{CLASSIFIER}': STARTS},
    ),
    "a dead worker, which 2.72 calls unready": Situation(
        {"TritonReplicaNotReady"}, {"pod_status_ready": "1x60 0+0x30"}
    ),
}


def scraped() -> dict[str, float]:
    """Series, as they were scraped from the pod triton-a, → value."""
    found = re.findall(r"^(nv_inference_\w+)\{(.*)\} (\S+)$", SCRAPE_2_72.read_text(), re.MULTILINE)
    return {f'{name}{{namespace="deepfake",pod="triton-a",{labels}}}': float(value) for name, labels, value in found}


def series(changes: dict[str, str], limit: int) -> list[dict[str, str]]:
    result = []
    for name, value in [*scraped().items(), *((name, 0.0) for name in AROUND)]:
        course = AROUND.get(name, "3+0x90" if "pending" in name else GROWS)
        for pattern, changed in changes.items():
            if re.search(pattern, name):
                course = changed
        values = course.format(value=f"{value:.0f}", at_change=f"{value * CHANGE:.0f}", limit=limit)
        result.append({"series": name, "values": values})
    return result


def case(name: str, shape: str) -> dict[str, Any]:
    situation = SITUATIONS[name]
    fires = set() if shape == "cpu" and "a CPU's met" in name else situation.fires
    given = series(situation.changes, 256 if shape == "cpu" else 1024)
    return {
        "name": name,
        "interval": "1m",
        "input_series": as_on_a_gpu(given) if shape == "gpu" else given,
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{LOOK}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(fires)],
            }
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_exactly_the_alerts_fire_that_should(shape: str, tmp_path: Path) -> None:
    files = write_rules(tmp_path, cpu=shape == "cpu")
    groups = [group["name"] for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    document = {
        "rule_files": [path.name for path in files],
        "group_eval_order": groups,  # who reads another group's series must come after it
        "evaluation_interval": "1m",
        "tests": [case(name, shape) for name in SITUATIONS],
    }
    path = tmp_path / "situations.test.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    promtool("test", "rules", str(path))


def test_the_changes_are_to_series_that_triton_has_and_the_alerts_exist() -> None:
    names = [*scraped(), *AROUND]
    for situation in SITUATIONS.values():
        assert situation.fires <= set(alerts())
        for pattern in situation.changes:
            assert any(re.search(pattern, name) for name in names), pattern
