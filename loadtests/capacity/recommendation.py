"""From what was measured to the autoscaler's figures and the number of replicas."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .search import Found
from .step import Step

#: Replicas that keep serving while one is drained, replaced, or lost with its node.
_SPARE = 1
_LEAST_REPLICAS = 2
_LEAST_PENDING = 0.5
_ABOVE_LIGHTEST = 1.5


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to set, for replicas like the one that was measured."""

    planned: float
    """Images per second that a replica is planned for."""
    pending: float | None
    """Requests waiting per replica above which replicas are added; None without Triton's metrics."""
    queue_to_compute: float | None
    """Queue time over compute time, likewise."""
    replicas: int | None
    """Replicas for the traffic, the spare one included; None when no traffic was named."""
    maximum: int | None
    """Upper bound for the autoscaler: the replicas for twice the traffic."""


def recommend(found: Found, headroom: float, traffic: float | None) -> Recommendation | None:
    """What follows from a search; None when no load held the target.

    Args:
        headroom: share of the capacity, 0 to 1, that is left free: for bursts, and for the minutes until a new replica
            is ready.
        traffic: images per second to be served in all.
    """
    if found.capacity is None:
        return None
    planned = found.capacity * (1 - headroom)
    good = [step for step in found.steps if step.offered <= found.capacity]
    pending = _threshold(planned, [(step.offered, step.pending) for step in good])
    ratio = _threshold(planned, [(step.offered, step.queue_to_compute) for step in good])
    return Recommendation(
        planned=planned,
        pending=None if pending is None else max(pending, _LEAST_PENDING),
        queue_to_compute=ratio,
        replicas=None if traffic is None else _replicas(traffic, planned),
        maximum=None if traffic is None else _replicas(2 * traffic, planned),
    )


def _replicas(traffic: float, planned: float) -> int:
    return max(math.ceil(traffic / planned) + _SPARE, _LEAST_REPLICAS)


def _threshold(rate: float, points: list[tuple[float, float | None]]) -> float | None:
    """The value at the planned load; but well above that of the lightest one, where the batcher's delay alone makes
    requests wait, since a threshold that an idle replica exceeds pins the autoscaler to its maximum."""
    planned, lightest = _at(rate, points), _at(0.0, points)
    if planned is None or lightest is None:
        return None
    return _two_digits(max(planned, _ABOVE_LIGHTEST * lightest))


def _at(rate: float, points: list[tuple[float, float | None]]) -> float | None:
    """The value at `rate`, on the line between the means of the loads next to it."""
    by_rate: dict[float, list[float]] = {}
    for offered, value in points:
        if value is not None:
            by_rate.setdefault(offered, []).append(value)
    means = [(offered, sum(values) / len(values)) for offered, values in sorted(by_rate.items())]
    if not means:
        return None
    below = max((each for each in means if each[0] <= rate), default=means[0])
    above = min((each for each in means if each[0] >= rate), default=means[-1])
    if below[0] >= above[0]:
        return below[1]
    return below[1] + (above[1] - below[1]) * (rate - below[0]) / (above[0] - below[0])


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def scaling_patch(recommendation: Recommendation, kind: str) -> str:
    """A kustomize patch that puts the figures into the component `autoscaling-keda` or `autoscaling-hpa`.

    Args:
        kind: "ScaledObject" or "HorizontalPodAutoscaler".
    """
    keda = kind == "ScaledObject"
    paths = {
        "pending": "/spec/triggers/0/metadata/threshold" if keda else "/spec/metrics/0/pods/target/averageValue",
        "ratio": "/spec/triggers/1/metadata/threshold" if keda else "/spec/metrics/1/pods/target/averageValue",
        "most": "/spec/maxReplicaCount" if keda else "/spec/maxReplicas",
    }
    values = {
        "pending": _quoted(recommendation.pending),
        "ratio": _quoted(recommendation.queue_to_compute),
        "most": None if recommendation.maximum is None else str(recommendation.maximum),
    }
    lines = [
        f"      - {{op: replace, path: {paths[name]}, value: {value}}}"
        for name, value in values.items()
        if value is not None
    ]
    return "\n".join(["patches:", f"  - target: {{kind: {kind}, name: triton}}", "    patch: |-", *lines])


def _quoted(value: float | None) -> str | None:
    return None if value is None else f'"{value:g}"'


def spread(steps: tuple[Step, ...]) -> str:
    """Lowest to highest 95th percentile of some runs of the same load."""
    values = [step.p95_ms for step in steps]
    return f"{min(values):,.0f}" if len(values) == 1 else f"{min(values):,.0f} to {max(values):,.0f}"
