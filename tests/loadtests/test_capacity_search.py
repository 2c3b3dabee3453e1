"""Where the knee is, what it is made of, and what follows: on servers that exist on paper."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.capacity.__main__ import parsed
from loadtests.capacity.report import Report, find_bottleneck, recommend, render, write
from loadtests.capacity.search import Found, Step, search
from tests.support.project import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes" / "components"
_QUIET = Step(
    offered=10.0,
    sent=200,
    answered=10.0,
    p50_ms=50.0,
    p95_ms=80.0,
    p99_ms=90.0,
    failures={},
    met=True,
    late_p99_ms=1.0,
    gpu=None,
    batch=1.5,
    queue_ms=10.0,
    compute_ms=40.0,
    decode_ms=None,
    pending=0.5,
    busy=0.4,
)


def step(**changes: Any) -> Step:
    """A step on a machine of two cores that holds a target of 100 ms, but for the changes."""
    return dataclasses.replace(_QUIET, **changes)


def server(capacity: float, *, unlucky: tuple[int, ...] = ()) -> Callable[[float], Step]:
    """Holds its target up to `capacity`, but not in those runs, counted from 0, that are unlucky."""
    runs = itertools.count()

    def offer(rate: float) -> Step:
        met = next(runs) not in unlucky and rate <= capacity
        return step(offered=rate, met=met, p95_ms=80.0 if met else 300.0)

    return offer


@pytest.mark.parametrize("capacity", [30, 55, 83, 97, 104, 180])
@pytest.mark.parametrize("estimate", [60, 100, 130])
def test_the_knee_is_found_between_the_last_load_that_held_and_the_first_that_did_not(
    capacity: float, estimate: float
) -> None:
    found = search(server(capacity), estimate, repeats=3)
    assert found.capacity is not None
    assert found.capacity <= capacity < found.broken.offered
    assert found.broken.offered <= found.capacity * 1.5
    assert len(found.at_capacity) == 3
    assert len(found.steps) <= 16


def test_a_load_that_holds_only_once_is_not_the_capacity() -> None:
    # 0.25 … 0.9 hold, 1.0 breaks, 0.95 holds at first, and not when it is repeated.
    found = search(server(96, unlucky=(7,)), 100, repeats=3)
    assert found.capacity == pytest.approx(90)
    assert [held.met for held in found.at_capacity] == [True, True, True]


def test_a_server_that_holds_hardly_anything_is_asked_for_less() -> None:
    found = search(server(10), 100, repeats=2)
    assert found.capacity == pytest.approx(9.375)  # 25 and 12.5 break, 6.25 holds, and so does what is between


def test_a_target_out_of_reach_ends_the_search() -> None:
    found = search(server(0.1), 100, repeats=3)
    assert found.capacity is None
    assert len(found.steps) == 3
    assert find_bottleneck(found, 100) == "latency"


def test_a_server_that_never_breaks_ends_the_search_too() -> None:
    found = search(server(math.inf), 100, repeats=1)
    assert found.broken is None
    assert len(found.steps) < 24
    assert find_bottleneck(found, 100) == "none"


def broken(**changes: Any) -> Found:
    steps = (step(), step(**{"offered": 20.0, "met": False, "p95_ms": 500.0, **changes}))
    return Found(steps, 10.0)


#: Bottleneck → what the page says about it.
ADVICE = {
    "wrong answers": "no figure here counts",
    "generator": "Raise <code>--generators</code>",
    "gpu": "one GPU each",
    "decoder": "Decode at the callers",
    "model": "it computed 98% of the time",
    "unknown": "Not visible from here",
}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"gpu": 0.97, "busy": 0.98}, "gpu"),
        ({"decode_ms": 60.0, "busy": 0.98}, "decoder"),
        ({"decode_ms": 10.0, "busy": 0.98}, "model"),
        ({"busy": None, "batch": None}, "unknown"),
        ({"busy": 0.98, "late_p99_ms": 11.0}, "generator"),
        ({"busy": 0.98, "failures": {"wrong answer: not the known scores": 1}}, "wrong answers"),
        ({"busy": 0.98, "failures": {"deadline: no answer in time": 9}}, "model"),
    ],
)
def test_the_bottleneck_is_what_was_full(changes: dict[str, Any], name: str) -> None:
    found = broken(**changes)
    assert find_bottleneck(found, 100.0) == name
    assert ADVICE[name] in " ".join(render(report(found)).split())


def searched() -> Found:
    """10, 20 and 40 requests per second held, the last twice; 60 did not."""
    return Found(
        (
            step(offered=10.0, pending=0.1, queue_ms=4.0),
            step(offered=20.0, pending=1.0, queue_ms=8.0),
            step(offered=40.0, pending=4.0, queue_ms=32.0),
            step(offered=60.0, pending=90.0, queue_ms=360.0, met=False, p95_ms=math.inf),
            step(offered=40.0, pending=6.0, queue_ms=40.0, p95_ms=95.0),
        ),
        40.0,
    )


def test_replicas_and_thresholds_follow_from_the_planned_load() -> None:
    found = recommend(searched(), headroom=0.25, traffic=100.0)
    assert found is not None
    assert found.planned == 30.0
    assert found.pending == 15.0  # three times the mean of 4 and 6 at 40
    assert found.replicas == 5  # 100 / 30, rounded up, and one to lose
    assert found.maximum == 8


def test_the_fuse_stays_where_chance_alone_does_not_reach_it() -> None:
    found = recommend(Found((step(offered=20.0, pending=0.1),), 20.0), headroom=0.0, traffic=None)
    assert found is not None
    assert found.pending == 2.0


def test_without_tritons_metrics_the_ruler_alone_is_patched() -> None:
    found = recommend(Found((step(offered=20.0, pending=None),), 20.0), headroom=0.3, traffic=None)
    assert found is not None
    assert found.pending is None
    for patch in found.patches().values():
        (operation,) = yaml.safe_load(yaml.safe_load(patch)["patches"][0]["patch"])
        assert operation["value"] == "14"


@pytest.mark.parametrize(("capacity", "threshold"), [(6.4, "4.48"), (8123.0, "5690")])
def test_seven_tenths_of_the_capacity_are_planned_unless_told_otherwise(capacity: float, threshold: str) -> None:
    found = recommend(Found((step(offered=capacity),), capacity), parsed([]).headroom, traffic=None)
    assert found is not None
    assert all(f'value: "{threshold}"' in patch for patch in found.patches().values())


def test_nothing_is_recommended_where_nothing_held() -> None:
    assert recommend(Found((step(met=False),), None), 0.2, 100.0) is None


@pytest.mark.parametrize(
    ("component", "file"),
    [
        ("autoscaling-keda", "triton-scaledobject.yaml"),
        ("autoscaling-hpa", "triton-horizontalpodautoscaler.yaml"),
    ],
)
def test_the_patch_replaces_what_the_component_sets(component: str, file: str) -> None:
    recommendation = recommend(searched(), headroom=0.25, traffic=100.0)
    assert recommendation is not None
    (patch,) = yaml.safe_load(recommendation.patches()[component])["patches"]
    target = yaml.safe_load((KUBERNETES / component / file).read_text())
    assert patch["target"] == {"kind": target["kind"], "name": target["metadata"]["name"]}
    replaced = {}
    for operation in yaml.safe_load(patch["patch"]):
        *parents, last = operation["path"].strip("/").split("/")
        owner = target
        for key in parents:
            owner = owner[int(key) if isinstance(owner, list) else key]
        assert operation["op"] == "replace"
        assert type(owner[last]) is type(operation["value"])
        replaced[operation["path"]] = operation["value"]
    assert list(replaced.values()) == ["30", "15", 8]
    if component == "autoscaling-keda":
        assert [trigger["name"] for trigger in target["spec"]["triggers"]] == ["images-per-second", "pending-requests"]
    else:
        names = [metric["pods"]["metric"]["name"] for metric in target["spec"]["metrics"]]
        assert names == ["triton_images_per_second", "triton_pending_requests"]


def report(found: Found, **changes: Any) -> Report:
    around: dict[str, Any] = {
        "date": "2030-01-01 00:00 UTC",
        "command": "python -m loadtests.capacity",
        "url": "grpc://triton:8001",
        "server_is_here": True,
        "payload": "pixels",
        "processor": "a <fast> one",
        "cores": 2,
        "generators": 1,
        "model": "deepfake_vs_real",
        "model_version": "1",
        "max_batch_size": 8,
        "weights": "stand-in weights, bf16",
        "stand_in": False,
        "slo_p95_ms": 100.0,
        "step_seconds": 20.0,
        "settle_seconds": 2.0,
        "repeats": 3,
        "estimate": 40.0,
        "headroom": 0.25,
        "traffic": 100.0,
        **changes,
    }
    return Report(around, found)


def test_the_committed_report_recommends_what_this_code_makes_of_its_steps() -> None:
    document = json.loads((ROOT / "loadtests" / "results" / "capacity" / "report.json").read_text())
    steps = tuple(Step(**recorded) for recorded in document["steps"])
    around = document["circumstances"]
    found = recommend(Found(steps, document["capacity"]), around["headroom"], around["traffic"])
    assert found is not None
    assert dataclasses.asdict(found) == document["recommendation"]
    assert found.patches() == document["patches"]


def test_the_report_says_how_sure_it_is() -> None:
    made = report(searched())
    assert made.headline == "One replica holds 40 images per second, with 95 % of them answered within 100 ms."
    assert made.evidence == "Runs at that load: 2, 400 requests, p95 80 to 95 ms; 60 per second broke it."


def test_the_report_warns_of_what_makes_it_less_than_it_seems() -> None:
    page = render(report(Found((step(), step(offered=20.0, met=False)), 10.0), stand_in=True))
    assert "Stand-in weights" in page
    assert "rests on few requests" not in page
    few = Found((step(sent=50), step(offered=20.0, met=False)), 10.0)
    assert "rests on few requests" in render(report(few))


@pytest.mark.parametrize(
    "found",
    [
        searched(),
        broken(failures={"deadline: no answer in time": 200}, p50_ms=math.inf, p95_ms=math.inf, p99_ms=math.inf),
        Found((step(met=False, p50_ms=math.inf, p95_ms=math.inf, p99_ms=math.inf),), None),
        Found((step(batch=None, queue_ms=None, compute_ms=None, busy=None, pending=None),), 10.0),
        Found((step(gpu=0.5, decode_ms=3.0),), 10.0),
    ],
    ids=["all there is", "failures", "nothing held", "server elsewhere", "GPU"],
)
def test_whatever_was_measured_becomes_a_report(found: Found, tmp_path: Path) -> None:
    page = write(report(found), tmp_path / "report")
    assert json.loads((page.parent / "report.json").read_text())["steps"]
    assert {path.suffix for path in page.parent.iterdir()} == {".html", ".json"}


def test_the_page_holds_all_it_shows_and_escapes_what_it_is_told() -> None:
    page = render(report(searched()))
    assert "a &lt;fast&gt; one" in page
    assert "<fast>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "<img" not in page
