"""The dashboard: every expression gives a series where a real Prometheus scrapes a real Triton under load."""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cluster_stand_in import exporting
from deepfake_client import DeepfakeClient, DeepfakeError
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.observe import CPU_OBJECTIVES, LocalPrometheus, Target
from pictures import encoded, photo_like
from programs import require_program
from rules_files import OBSERVABILITY, rule_resources

DASHBOARD: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text())
FASTER = 60
VARIABLES = {"$namespace": "deepfake", "$pod": "triton-local", "$__rate_interval": "2s"}
PATIENCE_SECONDS = 60


def panels() -> list[dict[str, Any]]:
    """All of them, those in closed rows included, without the rows."""
    nested = [[panel, *panel.get("panels", [])] for panel in DASHBOARD["panels"]]
    return [panel for panel in itertools.chain(*nested) if panel["type"] != "row"]


@contextmanager
def load(url: str) -> Iterator[None]:
    """Images that are new, repeated and now and then broken, one after the other, until the end."""
    end = threading.Event()

    def call() -> None:
        with DeepfakeClient(url) as by_pixels, DeepfakeClient(url, decode="server") as by_image:
            for number in itertools.count():
                if end.is_set():
                    return
                image = encoded(photo_like(120, 90, number // 2), "JPEG")
                by_pixels.classify(image)
                by_image.classify(image)
                if number % 10 == 0:
                    with pytest.raises(DeepfakeError):
                        by_image.classify(b"no image")

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield
    finally:
        end.set()
        caller.join()


@pytest.fixture(scope="module")
def prometheus(observed: EmbeddedTriton) -> Iterator[LocalPrometheus]:
    """Scrapes Triton under load, and the stand-in for a cluster's exporters."""
    require_program("prometheus")
    address = observed.metrics_url.removeprefix("http://").removesuffix("/metrics")
    with exporting() as cluster, load(observed.grpc_url):
        targets = [Target(address), Target(cluster, job="stand-in", pod="stand-in")]
        with LocalPrometheus(targets, OBSERVABILITY, objectives=CPU_OBJECTIVES, faster=FASTER) as prometheus:
            yield prometheus


def without_variables(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return re.sub(r"\[1h\]", f"[{3600 // FASTER}s]", expression)


def test_every_expression_gives_a_series(prometheus: LocalPrometheus) -> None:
    missing = {(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]}
    missing |= {
        ("annotation", f"({annotation['expr']}) or vector(0)") for annotation in DASHBOARD["annotations"]["list"]
    }
    assert len(missing) > 50
    deadline = time.monotonic() + PATIENCE_SECONDS
    while missing and time.monotonic() < deadline:
        time.sleep(0.5)
        missing = {
            (title, expression)
            for title, expression in missing
            if all(math.isnan(value) for _, value in prometheus.query(without_variables(expression)))
        }
    assert missing == set()


def test_every_choice_of_the_dashboard_has_a_value(prometheus: LocalPrometheus) -> None:
    queries = [choice["definition"] for choice in DASHBOARD["templating"]["list"] if choice["type"] == "query"]
    assert len(queries) == 2
    for query in queries:
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        found = prometheus.query(f"count by ({label}) ({without_variables(series)})")
        assert [labels[label] for labels, _ in found] == [VARIABLES[f"${label}"]]


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
