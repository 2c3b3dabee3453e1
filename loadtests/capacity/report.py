"""What follows from a search: what the limit was and how many replicas to run, in report.html and report.json."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from .search import Found, Step

_TEMPLATE = Path(__file__).with_name("report.html.jinja")

_GENERATOR_LATE_SHARE = 0.1
_GPU = 0.9
_BUSY = 0.85
_DECODE_SHARE = 0.5

_SPARE = 1  # one replica may be drained, replaced, or lost with its node
_LEAST_REPLICAS = 2
# The fuse: so many times what waits at the capacity itself, and never as little as chance brings together.
_FUSE = 3.0
_LEAST_FUSE = 2.0

# Component → kind, and where it has the ruler's threshold, the fuse's, and the most replicas.
_PATCHED = {
    "autoscaling-keda": (
        "ScaledObject",
        ("triggers/0/metadata/threshold", "triggers/1/metadata/threshold", "maxReplicaCount"),
    ),
    "autoscaling-hpa": (
        "HorizontalPodAutoscaler",
        ("metrics/0/pods/target/averageValue", "metrics/1/pods/target/averageValue", "maxReplicas"),
    ),
}


def generator_bound(step: Step, slo_p95_ms: float) -> bool:
    """Whether the step measured the load generator rather than the server."""
    return step.late_p99_ms > slo_p95_ms * _GENERATOR_LATE_SHARE


def find_bottleneck(found: Found, slo_p95_ms: float) -> str:
    """What kept the load from rising: wrong answers, generator, none, latency, gpu, decoder, model or unknown."""
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
    if (step.decode_ms or 0.0) > _DECODE_SHARE * (step.compute_ms or math.inf):
        return "decoder"
    return "model" if (step.busy or 0.0) >= _BUSY else "unknown"


@dataclass(frozen=True, slots=True)
class Recommendation:
    planned: float
    """Images per second that a replica is planned for; the ruler's threshold."""
    pending: float | None
    """Requests waiting per replica, the fuse's threshold; None without Triton's metrics."""
    replicas: int | None
    """Replicas for the traffic, the spare one included; None when no traffic was named."""
    maximum: int | None
    """Upper bound for the autoscaler: the replicas for twice the traffic."""

    def patches(self) -> dict[str, str]:
        """A kustomize patch for each of the two autoscaling components, with what is known."""
        pending = None if self.pending is None else f'"{self.pending:g}"'
        values = (f'"{_rounded(self.planned, 3):g}"', pending, self.maximum)
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
    waiting = [step.pending for step in found.at_capacity if step.pending is not None]
    return Recommendation(
        planned=planned,
        pending=fuse_threshold(fmean(waiting)) if waiting else None,
        replicas=None if traffic is None else _replicas(traffic, planned),
        maximum=None if traffic is None else _replicas(2 * traffic, planned),
    )


def fuse_threshold(pending: float) -> float:
    """Requests waiting per replica that tell of too many, where so many wait on average at the capacity."""
    return _rounded(max(_FUSE * pending, _LEAST_FUSE), 2)


def _patch(kind: str, paths: tuple[str, ...], values: tuple[object, ...]) -> str:
    operations = [
        f"      - {{op: replace, path: /spec/{path}, value: {value}}}"
        for path, value in zip(paths, values, strict=True)
        if value is not None
    ]
    return "\n".join(["patches:", f"  - target: {{kind: {kind}, name: triton}}", "    patch: |-", *operations])


def _replicas(traffic: float, planned: float) -> int:
    return max(math.ceil(traffic / planned) + _SPARE, _LEAST_REPLICAS)


def _rounded(value: float, digits: int) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits}g}")


@dataclass(frozen=True, slots=True)
class Report:
    circumstances: dict[str, Any]
    """Where, when and how it was measured; `capacity.__main__` makes it."""
    found: Found

    @property
    def bottleneck(self) -> str:
        return find_bottleneck(self.found, self.circumstances["slo_p95_ms"])

    @property
    def recommendation(self) -> Recommendation | None:
        return recommend(self.found, self.circumstances["headroom"], self.circumstances["traffic"])

    @property
    def headline(self) -> str:
        slo = f"{self.circumstances['slo_p95_ms']:,.0f} ms"
        if self.found.capacity is None:
            return f"No load was found at which 95 % of the requests are answered within {slo}."
        return (
            f"One replica holds {self.found.capacity:.3g} images per second, with 95 % of them answered within {slo}."
        )

    @property
    def evidence(self) -> str:
        runs, broken = self.found.at_capacity, self.found.broken
        if not runs:
            return ""
        above = f"{broken.offered:.3g} per second broke it" if broken else "no heavier load was broken"
        p95, requests = [step.p95_ms for step in runs], sum(step.sent for step in runs)
        spread = f"p95 {min(p95):,.0f} to {max(p95):,.0f} ms"
        return f"Runs at that load: {len(runs)}, {requests:,} requests, {spread}; {above}."

    def to_dict(self) -> dict[str, Any]:
        recommended = self.recommendation
        return {
            "headline": self.headline,
            "evidence": self.evidence,
            "capacity": self.found.capacity,
            "bottleneck": self.bottleneck,
            "recommendation": recommended and asdict(recommended),
            "patches": recommended.patches() if recommended else {},
            "circumstances": self.circumstances,
            "steps": [step.to_dict() for step in self.found.steps],
        }


def write(report: Report, folder: Path) -> Path:
    """Writes report.html and report.json; returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(report.to_dict(), indent=2, allow_nan=False)
    (folder / "report.json").write_text(f"{document}\n", encoding="utf-8")
    (folder / "report.html").write_text(render(report), encoding="utf-8")
    return folder / "report.html"


def render(report: Report) -> str:
    """The page: everything it shows is in it."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value, form: "–" if value is None else format(value, form)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        recommended=report.recommendation,
        around=report.circumstances,
        limiting=report.found.limiting,
        steps=sorted(report.found.steps, key=lambda step: step.offered),
        generator_bound=lambda step: generator_bound(step, report.circumstances["slo_p95_ms"]),
    )
