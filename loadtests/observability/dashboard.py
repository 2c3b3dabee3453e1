"""What the dashboard shows under load, as a table and a picture.

    python -m loadtests.observability.dashboard [--repository model_repository] [--output loadtests/results/dashboard]

Starts an embedded Triton and a Prometheus with the rules of deploy/observability, puts a light load on the server, then
as much as it does, then more than its queue holds, and evaluates every panel's expressions at the end of each. Grafana
itself is not run. Panels that need a GPU or a cluster get made-up series and are marked so.

Prometheus runs `--faster` times as fast as in a cluster, so that a phase of a minute is six there; rates are per real second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.capacity.resources import cores, processor_name
from loadtests.observability.exporters import MADE_UP_SERIES, exporting
from loadtests.observability.load import Callers
from loadtests.observability.prometheus import LocalPrometheus, PrometheusError, Target
from loadtests.observability.rules import CPU_OBJECTIVES, RulesError

matplotlib.use("Agg")
from matplotlib import pyplot

#: Name → callers who send one image after the other, beside the light load.
PHASES = {"light": 0, "at capacity": 8, "overload": 400}
NAMESPACE = "deepfake"
#: Grafana's unit → factor, digits and the unit that is written.
_UNITS = {
    "percentunit": (100, 1, "%"),
    "s": (1000, 1, " ms"),
    "reqps": (1, 2, "/s"),
    "cps": (1, 2, "/s"),
    "short": (1, 2, ""),
}
_MADE_UP_ROWS = ("GPU", "Replicas and autoscaler")
_COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """A panel with the title of the row it is in, Grafana's name of its unit, and legend and expression of each query."""

    row: str
    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]

    @property
    def made_up(self) -> bool:
        """Whether its series come from exporters.MADE_UP_SERIES."""
        return self.row.startswith(_MADE_UP_ROWS)


Values = dict[tuple[Panel, str], float]


def read_panels(dashboard: Path, faster: int) -> list[Panel]:
    """All panels from top to bottom, with Grafana's variables filled in for a Prometheus that is so many times faster."""
    panels, row = [], ""
    for entry in json.loads(dashboard.read_text())["panels"]:
        if entry["type"] == "row":
            row = entry["title"]
            continue
        queries = tuple((target["legendFormat"], fill_in(target["expr"], faster)) for target in entry["targets"])
        panels.append(Panel(row, entry["title"], entry["fieldConfig"]["defaults"]["unit"], queries))
    return panels


def fill_in(expression: str, faster: int) -> str:
    """`expression` without Grafana's variables. Grafana rates over four scrapes of 15 s."""
    return expression.replace("$namespace", NAMESPACE).replace("$__rate_interval", f"{max(60 // faster, 2)}s")


def read_values(prometheus: LocalPrometheus, panels: Sequence[Panel]) -> Values:
    """Panel and series → value, now; every expression has at least one entry."""
    values: Values = {}
    for panel in panels:
        for legend, expression in panel.queries:
            series = prometheus.query(expression) or [({}, math.nan)]
            values |= {
                (panel, name): value for name, value in sorted((_name(legend, at), value) for at, value in series)
            }
    return values


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip()


def table(phases: Mapping[str, Values]) -> str:
    """Markdown: a section for each row of the dashboard, a line for each series, a column for each phase."""
    panels = list(dict.fromkeys(panel for values in phases.values() for panel, _ in values))
    series = sorted(
        dict.fromkeys(key for values in phases.values() for key in values), key=lambda key: panels.index(key[0])
    )
    lines, row = [], ""
    for panel, name in series:
        if panel.row != row:
            row = panel.row
            lines += ["", f"## {row}{' — made-up figures, to show the panels' if panel.made_up else ''}", ""]
            lines += [f"| panel | series | {' | '.join(phases)} |", "|---|---|" + "---:|" * len(phases)]
        shown = [_formatted(values.get((panel, name), math.nan), panel.unit) for values in phases.values()]
        lines.append(f"| {panel.title} | {name} | {' | '.join(shown)} |")
    return "\n".join(lines[1:]) + "\n"


def _formatted(value: float, unit: str) -> str:
    if math.isnan(value):
        return "–"
    factor, digits, suffix = _UNITS[unit]
    return f"{value * factor:.{digits}f}".removesuffix("." + "0" * digits) + suffix


def draw(
    prometheus: LocalPrometheus, panels: Sequence[Panel], phases: Mapping[str, tuple[float, float]], path: Path
) -> None:
    """Write a PNG of every panel whose series are Triton's own; `phases`: name → begin and end in seconds since 1970."""
    shown = [panel for panel in panels if not panel.made_up]
    begin, end = min(begin for begin, _ in phases.values()), max(end for _, end in phases.values())
    rows = math.ceil(len(shown) / _COLUMNS)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=(5 * _COLUMNS, 3 * rows), layout="constrained")
    for panel, axis in zip(shown, axes.flat, strict=False):
        factor, _, unit = _UNITS[panel.unit]
        for legend, expression in panel.queries:
            for labels, samples in prometheus.query_range(expression, begin, end, 1.0):
                moments, values = zip(*samples, strict=True)
                name = _name(legend, labels)
                axis.plot(
                    [at - begin for at in moments], [value * factor for value in values], label=name, linewidth=1.3
                )
        for number, (name, (start, stop)) in enumerate(phases.items()):
            axis.axvspan(start - begin, stop - begin, color="0.5", alpha=0.06 + 0.08 * number, linewidth=0)
            middle = (start + stop) / 2 - begin
            axis.text(middle, 1.02, name, transform=axis.get_xaxis_transform(), ha="center", fontsize=7)
        axis.set_title(f"{panel.title} ({unit.strip()})".replace(" ()", ""), fontsize=10, pad=14)
        axis.set_ylim(bottom=0)
        if len(axis.lines) > 1:
            axis.legend(fontsize=6, loc="upper left", framealpha=0.6)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--observability", type=Path, default=Path("deploy/observability"))
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/dashboard"), metavar="FOLDER")
    parser.add_argument("--faster", type=int, default=6, help="than a cluster's (default: %(default)s)")
    parser.add_argument("--phase-seconds", type=float, default=60.0, help="of each load (default: %(default)s)")
    options = parser.parse_args()
    panels = read_panels(options.observability / "dashboard.json", options.faster)
    values: dict[str, Values] = {}
    alerts: dict[str, list[str]] = {}
    times: dict[str, tuple[float, float]] = {}
    server = EmbeddedTriton(options.repository, drain_seconds=1)
    try:
        with contextlib.ExitStack() as stack:
            server.start()
            stack.callback(server.kill)
            weights = _weights(server.grpc_url)
            exporter = stack.enter_context(exporting(lambda: MADE_UP_SERIES))
            targets = [Target(server.metrics_url), Target(exporter, "exporters", job="exporters")]
            prometheus = LocalPrometheus(
                targets, options.observability, objectives=CPU_OBJECTIVES, faster=options.faster
            )
            stack.enter_context(prometheus)
            stack.enter_context(Callers(server.grpc_url, mixed=True))
            for phase, callers in PHASES.items():
                with Callers(server.grpc_url, callers, pause_seconds=0):
                    began = time.time()
                    time.sleep(options.phase_seconds)
                    values[phase] = read_values(prometheus, panels)
                    alerts[phase] = sorted({alert.name for alert in prometheus.firing()})
                    times[phase] = (began, time.time())
            options.output.mkdir(parents=True, exist_ok=True)
            draw(prometheus, panels, times, options.output / "panels.png")
    except (EmbeddedTritonError, PrometheusError, RulesError) as error:
        sys.exit(f"dashboard: {error}")
    fired = [
        f"- Alerts that fire at the end of «{phase}»: {', '.join(names) or 'none'}" for phase, names in alerts.items()
    ]
    report = _INTRODUCTION.format(
        processor=processor_name(), cores=cores(), weights=weights, faster=options.faster, seconds=options.phase_seconds,
        capacity=PHASES["at capacity"], overload=PHASES["overload"], alerts="\n".join(fired),
    ) + table(values)  # fmt: skip
    (options.output / "values.md").write_text(report)
    print(report, end="")


_INTRODUCTION = """\
# The dashboard under load

By `make dashboard` on {processor}, {cores} cores, {weights}; Triton, Prometheus and the load on the same machine.
Prometheus ran {faster} times as fast as in a cluster; Grafana itself was not run. Each load lasts {seconds:.0f} s: one
caller who pauses; {capacity} more who do not; {overload} more. `panels.png` has the same over time. – stands for no value.

{alerts}

"""


def _weights(url: str) -> str:
    with DeepfakeClient(url) as client:
        provenance = client.provenance()
    return f"{'stand-in weights' if provenance.stand_in else provenance.model_id} in {provenance.precision}"


if __name__ == "__main__":
    main()
