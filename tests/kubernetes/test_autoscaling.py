"""Both autoscalers: they do the same, and ask for the replicas that the load needs."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import yaml
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.capacity.report import fuse_threshold
from tests.support.gpu_series import gpu_shaped
from tests.support.project import ROOT
from tests.support.prometheus import scraping
from tests.support.rendering import KUBERNETES, Rendering, render
from tests.support.slow_model import CAPACITY, write_repository

UTILISATION = 0.7
LEAST_OF_AN_L4 = 1200
GPU_BATCH = 64
MEASURED = "../../../../loadtests/results/capacity/report.html"

#: Shares of the capacity that are offered, the last more than there is.
LOADS = (0.05, 0.3, 0.6, 0.9, 1.0, 3.0)
HPA_TOLERANCE = 0.1
WINDOW_SECONDS = 60  # that the ruler looks back
SETTLING_SECONDS = 180


def labels(shape: str, share: float) -> dict[str, str]:
    """What the PodMonitor gives a pod; a namespace of its own for each server that the test has."""
    return {"namespace": f"{shape}-{share}", "pod": "triton-0", "container": "triton"}


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
    query = query.replace("<<.LabelMatchers>>", 'namespace="deepfake",pod=~"triton-0"')
    assert "<<" not in query
    return query


@contextmanager
def load(triton: EmbeddedTriton, per_second: int) -> Iterator[None]:
    """Requests of one image, so many in each second and at random moments of it, whatever becomes of the ones before."""
    stop, chance = threading.Event(), random.Random(per_second)
    tensor = tritonclient.grpc.InferInput("pixels", [1, 1], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 1), np.uint8))
    client = tritonclient.grpc.InferenceServerClient(triton.grpc_url.removeprefix("grpc://"))

    def send() -> None:
        begin = time.monotonic()
        for second in itertools.count():
            for moment in sorted(chance.random() for _ in range(per_second)):
                if stop.wait(max(0.0, begin + second + moment - time.monotonic())):
                    return
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


def asked(running: int, each: float, threshold: float) -> int:
    """Replicas that the HPA's formula asks for when so many run and a metric is `each` in every one of them."""
    ratio = each / threshold
    return running if abs(ratio - 1) <= HPA_TOLERANCE else math.ceil(running * ratio)


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


def test_the_thresholds_are_those_that_the_readme_derives(keda: Rendering) -> None:
    thresholds = {name: threshold for name, (_, threshold) in keda_triggers(keda).items()}
    assert thresholds == {"images-per-second": UTILISATION * LEAST_OF_AN_L4, "pending-requests": GPU_BATCH}
    assert f"max_batch_size: {GPU_BATCH}\n" in (ROOT / "model_repository/deepfake_vs_real/config.pbtxt").read_text()
    assert f"| {LEAST_OF_AN_L4:,} to 2,000 |" in (KUBERNETES / "README.md").read_text()
    readme = (KUBERNETES / "components" / "autoscaling-keda" / "README.md").read_text()
    measured = json.loads((ROOT / "loadtests/results/capacity/report.json").read_text())
    assert f"| GPU, derived and not measured | {thresholds['images-per-second']:g} | {GPU_BATCH} |" in readme
    images, pending = re.findall(r'/threshold, value: "(.+?)"', measured["patches"]["autoscaling-keda"])
    assert f"]({MEASURED}) | {images} | {pending} |" in readme


@pytest.mark.flaky(reruns=1)  # averages over a minute, on a machine whose speed varies
@pytest.mark.slow  # it loads servers of its own until averages of a minute have settled
def test_as_many_replicas_are_asked_for_as_the_load_needs(keda: Rendering, hpa: Rendering, tmp_path: Path) -> None:
    """A server for each load, all at once; each is seen in the shape of a CPU's series, and in that of a GPU's."""
    repository = write_repository(tmp_path / "repository")
    signals = {"keda": list(keda_triggers(keda).values()), "hpa": list(hpa_metrics(hpa).values())}
    with ExitStack() as stack:
        servers = {share: stack.enter_context(EmbeddedTriton(repository)) for share in LOADS}
        pods = [(triton.metrics_url, labels("cpu", share)) for share, triton in servers.items()]
        pods += [
            (stack.enter_context(gpu_shaped(url)), labels("gpu", share))
            for share, (url, _) in zip(LOADS, list(pods), strict=True)
        ]
        prometheus = stack.enter_context(scraping(pods, tmp_path / "prometheus"))

        def measured(shape: str, share: float, by: str, ago_seconds: float = 0.0) -> list[dict[str, float]]:
            """What the ruler and the fuse of one replica say."""
            namespace = f'namespace="{labels(shape, share)["namespace"]}"'
            queries = [query.replace('namespace="deepfake"', namespace) for query, _ in signals[by]]
            return [prometheus.query(query, ago_seconds) for query in queries]

        def off(shape: str, share: float, by: str) -> list[str]:
            """Where the replicas asked for are not those that the load needs."""
            ruler, fuse = (next(iter(found.values())) for found in measured(shape, share, by))
            _, at_capacity = (next(iter(found.values())) for found in measured(shape, 1.0, by))
            wrong = []
            for running in range(1, 11):
                by_ruler = asked(running, ruler, UTILISATION * CAPACITY)
                by_fuse = asked(running, fuse, fuse_threshold(at_capacity))
                needed = running * share / UTILISATION
                right = (
                    min(by_ruler, by_fuse) > running  # each by itself
                    if share > 1
                    else abs(max(by_ruler, by_fuse) - needed) <= 1 + 1e-9
                )
                if not right:
                    wrong.append(
                        f"{running} run, {needed:.2f} needed, ruler {by_ruler} ({ruler}), fuse {by_fuse} ({fuse})"
                    )
            return wrong

        cases = [(shape, share, by) for shape in ("cpu", "gpu") for share in LOADS for by in signals]
        until(lambda: all(all(measured(*case)) for case in cases), lambda: "no samples")
        for rule in adapter_rules():
            assert prometheus.query(rule["seriesQuery"])
        for case in cases:
            # Idle: nobody is needed, and the least number of replicas is what runs.
            assert {value for found in measured(*case) for value in found.values()} == {0.0}
            # An hour ago there were no pods: that is no answer, and not zero.
            assert not any(measured(*case, ago_seconds=3600))
        for share, triton in servers.items():
            stack.enter_context(load(triton, round(share * CAPACITY)))
        time.sleep(WINDOW_SECONDS)
        for case in cases:
            until(lambda: not off(*case), lambda: (case, off(*case)))  # noqa: B023 - called before the next round
