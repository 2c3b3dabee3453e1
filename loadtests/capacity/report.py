"""report.html, report.json and the plots."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from .bottleneck import Bottleneck, disturbed, generator_bound
from .plots import draw
from .recommendation import Recommendation, scaling_patch
from .search import Found

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
# Ten of these are above the 95th percentile.
_FEW_REQUESTS = 200
_COMPONENTS = {"autoscaling-keda": "ScaledObject", "autoscaling-hpa": "HorizontalPodAutoscaler"}


@dataclass(frozen=True, slots=True)
class Report:
    """All that a reader is told."""

    circumstances: dict[str, Any]
    """Where, when and how it was measured; `capacity.__main__` makes it."""
    found: Found
    bottleneck: Bottleneck
    recommendation: Recommendation | None

    @property
    def cautions(self) -> list[str]:
        """What makes the figures less than they seem."""
        around, steps, runs = self.circumstances, self.found.steps, self.found.at_capacity
        here, cores = around["server_is_here"], around["cores"]
        noisy = [step for step in steps if disturbed(step, cores, server_is_here=here)]
        most = max((step.other_cores for step in noisy), default=0.0)
        bound = sum(generator_bound(step, around["slo_p95_ms"]) for step in steps)
        hits = sum(step.cache_hits for step in steps)
        possible = {
            "Stand-in weights: random numbers in the real architecture. Speed is that of the model; verdicts mean "
            "nothing.": around["stand_in"],
            f"Other programs kept up to {most:.1f} of {cores} cores busy in {len(noisy)} of {len(steps)} steps. On a quiet "
            "machine the capacity is higher: measure again there before you rely on it.": noisy,
            f"Server and load generator shared {cores} cores. The generator's part is in the table; with the callers "
            "elsewhere, the server has that too.": here and cores <= 4,
            f"In {bound} of {len(steps)} steps the load generator was late or busy; they are marked.": bound
            and self.bottleneck.name != "generator",
            f"{hits:,.0f} requests were answered from the server's response cache. Only images with known scores repeat: "
            "`--known-rate 0` sends none.": hits,
            "The 95th percentile rests on few requests: raise --step-seconds or --repeats.": runs
            and sum(step.sent for step in runs) < _FEW_REQUESTS,
            "Triton's metrics were not in reach: pass --metrics-url for queue, batch size and thresholds.": all(
                step.batch is None for step in steps
            ),
        }
        return [caution for caution, holds in possible.items() if holds]

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
        times = "once" if len(runs) == 1 else f"{len(runs)} times"
        above = f"{broken.offered:.3g} per second broke it" if broken else "no heavier load was broken"
        shown = [f"{p95:,.0f}" for p95 in sorted({step.p95_ms for step in runs})]
        spread = shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"
        requests = sum(step.sent for step in runs)
        return f"Measured {times} at that load, {requests:,} requests: p95 {spread} ms; {above}."

    def patches(self) -> dict[str, str]:
        """A kustomize patch for each component, where Triton's metrics gave the figures."""
        if self.recommendation is None or self.recommendation.pending is None:
            return {}
        return {component: scaling_patch(self.recommendation, kind) for component, kind in _COMPONENTS.items()}

    def to_dict(self) -> dict[str, Any]:
        return {
            "headline": self.headline,
            "evidence": self.evidence,
            "cautions": self.cautions,
            "capacity": self.found.capacity,
            "bottleneck": asdict(self.bottleneck),
            "recommendation": None if self.recommendation is None else asdict(self.recommendation),
            "patches": self.patches(),
            "circumstances": self.circumstances,
            "steps": [step.to_dict() for step in self.found.steps],
        }


def write(report: Report, folder: Path) -> Path:
    """Writes all files; returns the path of report.html."""
    pictures = draw(report.found, report.circumstances["slo_p95_ms"], report.circumstances["cores"])
    files = {
        **pictures,
        "report.json": json.dumps(report.to_dict(), indent=2, allow_nan=False).encode() + b"\n",
        "report.html": render(report, pictures).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "report.html"


def render(report: Report, pictures: dict[str, bytes]) -> str:
    """The page: everything it shows is in it."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = _code
    environment.filters["number"] = lambda value, form: "–" if value is None else format(value, form)
    return environment.from_string(_TEMPLATE.read_text()).render(
        report=report,
        around=report.circumstances,
        steps=sorted(report.found.steps, key=lambda step: step.offered),
        has_gpu=any(step.gpu is not None for step in report.found.steps),
        generator_bound=lambda step: generator_bound(step, report.circumstances["slo_p95_ms"]),
        pictures={name: base64.b64encode(content).decode() for name, content in pictures.items()},
    )


def _code(text: str) -> markupsafe.Markup:
    """`text` with what stands between backticks as code."""
    pieces = [str(markupsafe.escape(piece)) for piece in text.split("`")]
    marked = [f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces)]
    return markupsafe.Markup("".join(marked))  # noqa: S704 - each piece was escaped above
