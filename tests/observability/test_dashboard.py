"""The dashboard: every expression gives a series where a real Prometheus scrapes a real Triton under load."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.observability import CPU_OBJECTIVES, LocalPrometheus, Target
from loadtests.observability.dashboard_parts.cluster_stand_in import exporting
from loadtests.observability.dashboard_parts.load import mixed_load
from loadtests.observability.dashboard_parts.panels import NAMESPACE, POD, fill_in, read_panels
from loadtests.observability.dashboard_parts.picture import draw
from loadtests.observability.dashboard_parts.table import read_values, render
from tests.support.programs import require_program
from tests.support.rules_files import OBSERVABILITY, rule_resources

DASHBOARD: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text())
FASTER = 60
PATIENCE_SECONDS = 60


def panels() -> list[dict[str, Any]]:
    """All of them, those in closed rows included, without the rows."""
    nested = [[panel, *panel.get("panels", [])] for panel in DASHBOARD["panels"]]
    return [panel for panel in itertools.chain(*nested) if panel["type"] != "row"]


@pytest.fixture(scope="module")
def prometheus(observed: EmbeddedTriton) -> Iterator[LocalPrometheus]:
    """Scrapes Triton under load, and the stand-in for a cluster's exporters."""
    require_program("prometheus")
    address = observed.metrics_url.removeprefix("http://").removesuffix("/metrics")
    with exporting() as cluster, mixed_load(observed.grpc_url, pause_seconds=0):
        targets = [Target(address), Target(cluster, job="stand-in", pod="stand-in")]
        with LocalPrometheus(targets, OBSERVABILITY, objectives=CPU_OBJECTIVES, faster=FASTER) as prometheus:
            yield prometheus


def test_every_expression_gives_a_series(prometheus: LocalPrometheus) -> None:
    read = read_panels(OBSERVABILITY / "dashboard.json", FASTER)
    assert [panel.title for panel in read] == [panel["title"] for panel in panels()]
    missing = {(panel.title, query.expression) for panel in read for query in panel.queries}
    missing |= {
        ("annotation", f"({fill_in(annotation['expr'], FASTER)}) or vector(0)")
        for annotation in DASHBOARD["annotations"]["list"]
    }
    assert len(missing) > 50
    deadline = time.monotonic() + PATIENCE_SECONDS
    while missing and time.monotonic() < deadline:
        time.sleep(0.5)
        missing = {
            (title, expression)
            for title, expression in missing
            if all(math.isnan(value) for _, value in prometheus.query(expression))
        }
    assert missing == set()


def test_the_table_and_the_picture_hold_every_panel(prometheus: LocalPrometheus, tmp_path: Path) -> None:
    read = read_panels(OBSERVABILITY / "dashboard.json", FASTER)
    now = time.time()
    table = render({"now": read_values(prometheus, read)})
    draw(prometheus, read, {"before": (now - 4, now - 2), "now": (now - 2, now)}, tmp_path / "panels.png")
    assert all(f"\n| {panel.title} | " in table for panel in read)
    assert "| Pending requests | limit | 256 |" in table
    assert re.findall("^## (.+) — made-up figures", table, re.MULTILINE) == [
        "GPU (needs dcgm-exporter)",
        "Replicas and autoscaler (needs kube-state-metrics)",
    ]
    assert (tmp_path / "panels.png").stat().st_size > 50_000


def test_every_choice_of_the_dashboard_has_a_value(prometheus: LocalPrometheus) -> None:
    queries = [choice["definition"] for choice in DASHBOARD["templating"]["list"] if choice["type"] == "query"]
    assert len(queries) == 2
    for query in queries:
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        found = prometheus.query(f"count by ({label}) ({fill_in(series, FASTER)})")
        assert [labels[label] for labels, _ in found] == [{"namespace": NAMESPACE, "pod": POD}[label]]


def test_every_rule_is_evaluated_and_nothing_fires_under_a_light_load(prometheus: LocalPrometheus) -> None:
    rules = prometheus.rules()
    assert len(rules) == sum(
        len(group["rules"]) for resource in rule_resources().values() for group in resource["spec"]["groups"]
    )
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    assert [alert.name for alert in prometheus.alerts() if alert.firing] == []


def test_panels_say_what_they_show_and_do_not_overlap() -> None:
    rows = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert len({panel["id"] for panel in rows + panels()}) == len(rows + panels())
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_a_replica_has_a_row_of_its_own_that_is_closed_until_asked_for() -> None:
    rows = [panel for panel in DASHBOARD["panels"] if panel.get("repeat") == "pod"]
    assert [(row["title"], row["collapsed"]) for row in rows] == [("Replica $pod", True)]
    assert all('pod="$pod"' in target["expr"] for panel in rows[0]["panels"] for target in panel["targets"])
