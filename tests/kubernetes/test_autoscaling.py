"""Both autoscalers: they do the same, and a real Prometheus that scrapes a real Triton under load answers their queries."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import yaml
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.prometheus import Prometheus, scraping
from tests.support.rendering import KUBERNETES, Rendering, render
from tests.support.slow_model import CAPACITY, write_repository

POD = {"namespace": "deepfake", "pod": "triton-0", "container": "triton"}
SETTLING_SECONDS = 180


@pytest.fixture(scope="module")
def keda(tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    return render(tmp_path_factory.mktemp("gpu"), "gpu")


@pytest.fixture(scope="module")
def hpa(tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    return render(tmp_path_factory.mktemp("gpu-hpa"), "gpu-hpa")


def keda_triggers(keda: Rendering) -> dict[str, tuple[str, float]]:
    """Trigger → query and threshold per replica."""
    triggers = keda.named("ScaledObject", "triton")["spec"]["triggers"]
    return {each["name"]: (each["metadata"]["query"], float(each["metadata"]["threshold"])) for each in triggers}


def adapter_rules() -> list[dict[str, Any]]:
    path = KUBERNETES / "components" / "autoscaling-hpa" / "prometheus-adapter-values.yaml"
    rules: list[dict[str, Any]] = yaml.safe_load(path.read_text())["rules"]["custom"]
    return rules


def hpa_metrics(hpa: Rendering) -> dict[str, tuple[str, float]]:
    """Metric → the query that prometheus-adapter makes of its rule for our pod, and the target per replica."""
    metrics = [each["pods"] for each in hpa.named("HorizontalPodAutoscaler", "triton")["spec"]["metrics"]]
    targets = {each["metric"]["name"]: float(each["target"]["averageValue"]) for each in metrics}
    rules = {rule["name"]["as"]: rule for rule in adapter_rules()}
    assert set(targets) == set(rules)
    return {name: (adapter_query(rules[name]), target) for name, target in targets.items()}


def adapter_query(rule: dict[str, Any]) -> str:
    query: str = rule["metricsQuery"]
    query = query.replace("<<.Series>>", rule["seriesQuery"].partition("{")[0]).replace("<<.GroupBy>>", "pod")
    query = query.replace("<<.LabelMatchers>>", f'namespace="{POD["namespace"]}",pod=~"{POD["pod"]}"')
    assert "<<" not in query
    return query


@contextmanager
def load(triton: EmbeddedTriton, per_second: float) -> Iterator[None]:
    """Requests of one image at random times, whatever becomes of the ones before."""
    stop, chance = threading.Event(), random.Random(1)
    tensor = tritonclient.grpc.InferInput("pixels", [1, 1], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 1), np.uint8))
    client = tritonclient.grpc.InferenceServerClient(triton.grpc_url.removeprefix("grpc://"))

    def send() -> None:
        due = time.monotonic()
        while not stop.is_set():
            due += chance.expovariate(per_second)
            time.sleep(max(0.0, due - time.monotonic()))
            client.async_infer("deepfake_vs_real", [tensor], callback=lambda **_: None)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        client.close()


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + SETTLING_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)


def replicas(answers: dict[str, float], target: float) -> int:
    """What the HPA makes of a metric: the sum over the target for each replica, rounded up."""
    return math.ceil(sum(answers.values()) / target)


def test_both_autoscalers_do_the_same(keda: Rendering, hpa: Rendering) -> None:
    scaled = keda.named("ScaledObject", "triton")["spec"]
    spec = hpa.named("HorizontalPodAutoscaler", "triton")["spec"]
    assert spec["behavior"] == scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (scaled["minReplicaCount"], scaled["maxReplicaCount"])
    targets = [threshold for _, threshold in hpa_metrics(hpa).values()]
    assert targets == [threshold for _, threshold in keda_triggers(keda).values()]


def test_without_an_answer_the_replicas_stay(keda: Rendering) -> None:
    """An HPA that lacks a metric never scales down; KEDA has to be told."""
    scaled = keda.named("ScaledObject", "triton")["spec"]
    for trigger in scaled["triggers"]:
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert trigger["metricType"] == "AverageValue"  # the fallback divides its answer over the replicas
    # No answer is then a failure, and KEDA takes the larger of what runs and of `replicas`, which may not add any.
    assert scaled["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert scaled["fallback"]["replicas"] == scaled["minReplicaCount"] >= 2


def test_the_queries_ask_for_the_labels_that_the_podmonitor_gives(keda: Rendering) -> None:
    namespace = keda.named("PodMonitor", "triton")["metadata"]["namespace"]
    (container,) = keda.named("Deployment", "triton")["spec"]["template"]["spec"]["containers"]
    for query, _ in keda_triggers(keda).values():
        assert query.count("{") == query.count(f'{{namespace="{namespace}",container="{container["name"]}"')


@pytest.mark.flaky(reruns=1)  # averages over a minute, on a machine whose speed varies
@pytest.mark.slow  # it loads a server of its own until averages of a minute have settled
def test_the_signals_follow_the_load(keda: Rendering, hpa: Rendering, tmp_path: Path) -> None:
    signals = keda_triggers(keda) | hpa_metrics(hpa)
    pending, waiting = ("pending-requests", "triton_pending_requests"), ("queue-to-compute", "triton_queue_to_compute")
    assert set(signals) == {*pending, *waiting}

    def wanted(prometheus: Prometheus) -> dict[str, int]:
        found = {name: prometheus.query(query) for name, (query, _) in signals.items()}
        assert all(len(answers) == 1 for answers in found.values()), found
        return {name: replicas(answers, signals[name][1]) for name, answers in found.items()}

    with (
        EmbeddedTriton(write_repository(tmp_path / "repository")) as triton,
        scraping(triton.metrics_url, POD, "deepfake-vs-real", tmp_path / "prometheus") as prometheus,
    ):
        until(lambda: all(prometheus.query(query) for query, _ in signals.values()), lambda: "no samples")
        for rule in adapter_rules():
            assert prometheus.query(rule["seriesQuery"])
        # An hour ago there were no pods: that is no answer, and not zero.
        assert not any(prometheus.query(query, ago_seconds=3600) for query, _ in signals.values())
        # Idle: nobody is needed, and the least number of replicas is what runs.
        assert set(wanted(prometheus).values()) == {0}

        with load(triton, CAPACITY / 2):
            until(lambda: prometheus.query(signals[waiting[0]][0])[""] > 0, lambda: "no request was counted")
            time.sleep(5)
            # One pod is enough for half of what it can do.
            found = wanted(prometheus)
            assert [found[name] for name in pending] == [1, 1], found

        with load(triton, CAPACITY):
            # It has no room left, and a second one is asked for.
            until(lambda: all(wanted(prometheus)[name] >= 2 for name in pending), lambda: wanted(prometheus))

        with load(triton, 3 * CAPACITY):
            # At least three are asked for, by either signal.
            until(lambda: min(wanted(prometheus).values()) >= 3, lambda: wanted(prometheus))
