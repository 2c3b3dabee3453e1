"""report.html, report.json and the picture."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from .conclusions import Recommendation, find_bottleneck, generator_bound, recommend
from .search import Found

_TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True, slots=True)
class Report:
    """All that a reader is told."""

    circumstances: dict[str, Any]
    """Where, when and how it was measured; `capacity.__main__` makes it."""
    found: Found

    @property
    def bottleneck(self) -> str:
        return find_bottleneck(self.found, self.circumstances["slo_p95_ms"], self.circumstances["cores"])

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
        """How sure the headline is."""
        runs, broken = self.found.at_capacity, self.found.broken
        if not runs:
            return ""
        above = f"{broken.offered:.3g} per second broke it" if broken else "no heavier load was broken"
        p95 = [step.p95_ms for step in runs]
        requests = sum(step.sent for step in runs)
        return f"Runs at that load: {len(runs)}, {requests:,} requests, p95 {min(p95):,.0f} to {max(p95):,.0f} ms; {above}."

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
    """Writes report.html, report.json and report.png; returns the path of the first."""
    picture = draw(report.found, report.circumstances["slo_p95_ms"], report.circumstances["cores"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.png").write_bytes(picture)
    document = json.dumps(report.to_dict(), indent=2, allow_nan=False)
    (folder / "report.json").write_text(f"{document}\n", encoding="utf-8")
    (folder / "report.html").write_text(render(report, picture), encoding="utf-8")
    return folder / "report.html"


def render(report: Report, picture: bytes) -> str:
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
        picture=base64.b64encode(picture).decode(),
    )


def draw(found: Found, slo_p95_ms: float, cores: int) -> bytes:
    """PNG over the offered load, a point for each run: latency against the target, and what was full."""
    steps = sorted(found.steps, key=lambda step: step.offered)
    offered = [step.offered for step in steps]
    latencies = {"p50": [step.p50_ms for step in steps], "p95": [step.p95_ms for step in steps]}
    usage = {
        "server's CPU": [step.server_cores and step.server_cores / cores for step in steps],
        "GPU": [step.gpu for step in steps],
        "model computing": [step.busy for step in steps],
        "load generator's core": [step.generator_cpu for step in steps],
    }
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, unit, lines in ((left, "Latency in ms", latencies), (right, "Share that is used", usage)):
        for (label, values), marker in zip(lines.items(), "osD^", strict=False):  # markers for print in grey
            if any(value is not None for value in values):
                axes.plot(offered, np.array(values, float), marker=marker, label=label)
        if found.capacity is not None:
            axes.axvline(found.capacity, color="grey", linestyle="--", label="capacity")
        axes.set(xlabel="Offered images per second", ylabel=unit, ylim=(0, None))
    left.axhline(slo_p95_ms, color="black", label="target for p95")
    for axes in (left, right):
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
