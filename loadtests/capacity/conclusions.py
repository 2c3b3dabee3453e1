"""What follows from a search: what the limit was, how many replicas to run, and when to add some."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .search import Found
from .step import Step

# A core that runs one Python process is busy long before it is full: garbage collection and the kernel come on top.
_GENERATOR_CPU = 0.8
_GENERATOR_LATE_SHARE = 0.1
_SERVER_CPU = 0.85
_GPU = 0.9
_BUSY = 0.85
_DECODE_SHARE = 0.5

_SPARE = 1  # one replica may be drained, replaced, or lost with its node
_LEAST_REPLICAS = 2
_LEAST_PENDING = 0.5
_ABOVE_LIGHTEST = 1.5

# Component → kind, and where it has the two thresholds and the upper bound.
_PATCHED = {
    "autoscaling-keda": (
        "ScaledObject",
        ("/spec/triggers/0/metadata/threshold", "/spec/triggers/1/metadata/threshold", "/spec/maxReplicaCount"),
    ),
    "autoscaling-hpa": (
        "HorizontalPodAutoscaler",
        (
            "/spec/metrics/0/pods/target/averageValue",
            "/spec/metrics/1/pods/target/averageValue",
            "/spec/maxReplicas",
        ),
    ),
}


def generator_bound(step: Step, slo_p95_ms: float) -> bool:
    """Whether the step measured the load generator rather than the server."""
    return step.generator_cpu >= _GENERATOR_CPU or step.late_p99_ms > slo_p95_ms * _GENERATOR_LATE_SHARE


def find_bottleneck(found: Found, slo_p95_ms: float, cores: int) -> str:
    """What kept the load from rising further: wrong answers, generator, none, latency, gpu, decoder, cpu, model, unknown.

    Args:
        cores: processors of the machine that the server is on, if it is this one.
    """
    step = found.limiting
    if any(cause.startswith("wrong") for each in found.steps for cause in each.failures):
        return "wrong answers"
    if generator_bound(step, slo_p95_ms):
        return "generator"
    if found.broken is None:
        return "none"
    if found.capacity is None:
        return "latency"
    if (step.gpu or 0.0) >= _GPU:
        return "gpu"
    if (step.server_cores or 0.0) >= _SERVER_CPU * cores:
        decoding = (step.decode_ms or 0.0) > _DECODE_SHARE * (step.compute_ms or math.inf)
        return "decoder" if decoding else "cpu"
    return "model" if (step.busy or 0.0) >= _BUSY else "unknown"


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

    def patches(self) -> dict[str, str]:
        """A kustomize patch for each of the two autoscaling components; none without Triton's metrics."""
        if self.pending is None:
            return {}
        values = (f'"{self.pending:g}"', self.queue_to_compute and f'"{self.queue_to_compute:g}"', self.maximum)
        return {component: _patch(kind, paths, values) for component, (kind, paths) in _PATCHED.items()}


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
    good = sorted((step for step in found.steps if step.offered <= found.capacity), key=lambda step: step.offered)
    pending = _threshold(planned, [(step.offered, step.pending) for step in good])
    return Recommendation(
        planned=planned,
        pending=None if pending is None else max(pending, _LEAST_PENDING),
        queue_to_compute=_threshold(planned, [(step.offered, step.queue_to_compute) for step in good]),
        replicas=None if traffic is None else _replicas(traffic, planned),
        maximum=None if traffic is None else _replicas(2 * traffic, planned),
    )


def _patch(kind: str, paths: tuple[str, ...], values: tuple[object, ...]) -> str:
    operations = [
        f"      - {{op: replace, path: {path}, value: {value}}}"
        for path, value in zip(paths, values, strict=True)
        if value is not None
    ]
    return "\n".join(["patches:", f"  - target: {{kind: {kind}, name: triton}}", "    patch: |-", *operations])


def _replicas(traffic: float, planned: float) -> int:
    return max(math.ceil(traffic / planned) + _SPARE, _LEAST_REPLICAS)


def _threshold(rate: float, points: list[tuple[float, float | None]]) -> float | None:
    """The value at the planned load, on the line between the means of the loads next to it.

    But well above that of the lightest load, where the batcher's delay alone makes requests wait: a threshold that an
    idle replica exceeds pins the autoscaler to its maximum.
    """
    by_rate: dict[float, list[float]] = {}
    for offered, value in points:
        if value is not None:
            by_rate.setdefault(offered, []).append(value)
    if not by_rate:
        return None
    means = [float(np.mean(values)) for values in by_rate.values()]
    return float(f"{max(np.interp(rate, list(by_rate), means), _ABOVE_LIGHTEST * means[0]):.2g}")
