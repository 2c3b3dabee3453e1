"""The dashboard: every expression gives a series where a real Prometheus scrapes a real Triton under load."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.observability.dashboard import NAMESPACE, fill_in, read_panels, table
from loadtests.observability.load import Callers
from loadtests.observability.prometheus import CPU_OBJECTIVES, Prometheus, local_prometheus, read_groups, target
from tests.support.programs import require_program
from tests.support.prometheus import evaluated_rules, exporting
from tests.support.rules_files import OBSERVABILITY, SCRAPE_2_72, rules

DASHBOARD: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text())
FASTER = 60
PATIENCE_SECONDS = 60
_GPU = {
    "gpu": "0",
    "UUID": "GPU-0",
    "Hostname": "node-1",
    "namespace": NAMESPACE,
    "pod": "triton-local",
    "container": "triton",
}
_HPA = {"namespace": NAMESPACE, "horizontalpodautoscaler": "keda-hpa-triton"}
_KEDA = {"namespace": "keda", "exported_namespace": NAMESPACE, "scaledObject": "triton", "metric": "s0-prometheus"}
#: Names and labels as dcgm-exporter, kube-state-metrics and KEDA document them; the values are made up.
_MADE_UP: list[tuple[str, dict[str, str], int]] = [
    ("DCGM_FI_DEV_GPU_UTIL", _GPU, 71),
    ("DCGM_FI_DEV_XID_ERRORS", _GPU, 0),
    ("kube_deployment_status_replicas_available", {"namespace": NAMESPACE, "deployment": "triton"}, 1),
    ("kube_horizontalpodautoscaler_status_desired_replicas", _HPA, 1),
    ("kube_horizontalpodautoscaler_spec_min_replicas", _HPA, 1),
    ("kube_horizontalpodautoscaler_spec_max_replicas", _HPA, 8),
    ("keda_scaler_metrics_value", _KEDA, 3),
]
#: A group of rules that records them, where there is neither a GPU nor Kubernetes.
MADE_UP_GROUP: dict[str, Any] = {
    "name": "made-up",
    "interval": "1s",
    "rules": [{"record": name, "labels": labels, "expr": f"vector({value})"} for name, labels, value in _MADE_UP],
}


PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def prometheus(observed: EmbeddedTriton) -> Iterator[Prometheus]:
    """Records what stands for a cluster's exporters, and scrapes Triton under load and a 2.72, which has a histogram of latencies."""
    require_program("prometheus")
    groups = [*read_groups(OBSERVABILITY, CPU_OBJECTIVES, FASTER), MADE_UP_GROUP]
    with (
        exporting(later_release()) as later,
        Callers(observed.grpc_url, pause_seconds=0, mixed=True),
    ):
        targets = [target(observed.metrics_url), target(later, "triton-2.72")]
        with local_prometheus(targets, groups, faster=FASTER) as prometheus:
            yield prometheus


def later_release() -> Callable[[], str]:
    """What a Triton 2.72 says that counts from scrape to scrape what the one in the file had counted."""
    scrapes = itertools.count(1)

    def grown() -> str:
        times = next(scrapes)
        return re.sub(r"(?<=\} )\d+$", lambda value: str(int(value[0]) * times), SCRAPE_2_72.read_text(), flags=re.M)

    return grown


@pytest.mark.slow
def test_every_expression_gives_a_series(prometheus: Prometheus) -> None:
    read = read_panels(OBSERVABILITY / "dashboard.json", FASTER)
    assert [panel.title for panel in read] == [panel["title"] for panel in PANELS]
    missing = {(panel.title, expression) for panel in read for _, expression in panel.queries}
    missing |= {
        ("annotation", f"({fill_in(annotation['expr'], FASTER)}) or vector(0)")
        for annotation in DASHBOARD["annotations"]["list"]
    }
    assert len(missing) > 25
    deadline = time.monotonic() + PATIENCE_SECONDS
    while missing and time.monotonic() < deadline:
        time.sleep(0.5)
        missing = {
            (title, expression)
            for title, expression in missing
            if all(math.isnan(value) for _, value in prometheus.query(expression))
        }
    assert missing == set()


@pytest.mark.slow
def test_the_table_holds_every_panel(prometheus: Prometheus) -> None:
    read = read_panels(OBSERVABILITY / "dashboard.json", FASTER)
    now = time.time()
    phases = {"before": now - 2, "now": now}
    text = table(prometheus, read, phases)
    assert all(f"\n| {panel.title} | " in text for panel in read)
    assert "| Pending requests | limit | 256 | 256 |" in text
    assert "| GPU busy | node-1 0 | 71% | 71% |" in text


@pytest.mark.slow
def test_the_choice_of_a_namespace_has_a_value(prometheus: Prometheus) -> None:
    (choice,) = [choice["definition"] for choice in DASHBOARD["templating"]["list"] if choice["type"] == "query"]
    series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", choice).groups()
    assert [labels[label] for labels, _ in prometheus.query(f"count by ({label}) ({series})")] == [NAMESPACE]


@pytest.mark.slow
def test_every_rule_is_evaluated_and_nothing_fires_under_a_light_load(prometheus: Prometheus) -> None:
    evaluated = evaluated_rules(prometheus.url)
    assert len(evaluated) == len(rules()) + len(MADE_UP_GROUP["rules"])
    assert [(rule["name"], rule.get("lastError")) for rule in evaluated if rule["health"] != "ok"] == []
    assert prometheus.firing() == {}


def test_panels_say_what_they_show_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        across, down = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = set(itertools.product(across, down))
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
