"""What the dashboard shows under load, as a table.

    python -m loadtests.observability.dashboard [--repository model_repository] [--output loadtests/results/dashboard]

Starts an embedded Triton and a Prometheus with the rules of deploy/observability, puts a light load on the server, then
as much as it does, then more than its queue holds, and evaluates every panel's expressions at the end of each. Grafana
itself is not run. Panels that need a GPU or a cluster are left out.

Prometheus runs six times as fast as in a cluster, so that a phase of a minute is six there; rates are per real second.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.capacity.resources import cores, processor_name, weights
from loadtests.observability.load import Callers
from loadtests.observability.prometheus import (
    CPU_OBJECTIVES,
    Prometheus,
    PrometheusError,
    local_prometheus,
    read_groups,
    target,
)

#: Name → callers who send one image after the other, beside the light load.
PHASES = {"light": 0, "at capacity": 8, "overload": 400}
PHASE_SECONDS, FASTER = 60.0, 6
NAMESPACE = "deepfake"
#: Grafana's unit → factor and the unit that is written.
_UNITS = {"percentunit": (100, "%"), "s": (1000, " ms"), "reqps": (1, "/s"), "cps": (1, "/s"), "short": (1, "")}
_HEAD = """\
# The dashboard under load

By `make dashboard`; Triton, Prometheus and the load on the same machine: {machine}.
Prometheus ran six times as fast as in a cluster. Each load lasts a minute: one caller who pauses; 8 more who do not;
400 more. – stands for no value: Triton 2.51 has no histogram of latencies.

| load | alerts that fire at its end |
|---|---|
{fired}
"""


class Panel(NamedTuple):
    """A panel with the title of its row, Grafana's name of its unit, and legend and expression of each query."""

    row: str
    title: str
    unit: str
    queries: list[tuple[str, str]]


def read_panels(dashboard: Path, faster: int = FASTER) -> list[Panel]:
    """All panels from top to bottom, with Grafana's variables filled in for a Prometheus that is so much faster."""
    panels, row = [], ""
    for entry in json.loads(dashboard.read_text(encoding="utf-8"))["panels"]:
        if entry["type"] == "row":
            row = entry["title"]
            continue
        queries = [(target["legendFormat"], fill_in(target["expr"], faster)) for target in entry["targets"]]
        panels.append(Panel(row, entry["title"], entry["fieldConfig"]["defaults"]["unit"], queries))
    return panels


def fill_in(expression: str, faster: int) -> str:
    """`expression` without Grafana's variables. Grafana rates over four scrapes of 15 s."""
    return expression.replace("$namespace", NAMESPACE).replace("$__rate_interval", f"{max(60 // faster, 2)}s")


def table(prometheus: Prometheus, panels: Sequence[Panel], phases: Mapping[str, float]) -> str:
    """Markdown: a section for each row of the dashboard, a line for each series, its value at the end of each phase.

    The phases' ends are in seconds since 1970.
    """
    lines, row = [], ""
    for panel in panels:
        if panel.row != row:
            row = panel.row
            lines += ["", f"## {row}", ""]
            lines += [f"| panel | series | {' | '.join(phases)} |", "|---|---|" + "---:|" * len(phases)]
        for legend, expression in panel.queries:
            values = [
                {_name(legend, labels): value for labels, value in prometheus.query(expression, end)}
                for end in phases.values()
            ]
            for name in sorted({name for at_end in values for name in at_end}) or [legend]:
                shown = " | ".join(_formatted(at_end.get(name, math.nan), panel.unit) for at_end in values)
                lines.append(f"| {panel.title} | {name} | {shown} |")
    return "\n".join(lines) + "\n"


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip()


def _formatted(value: float, unit: str) -> str:
    if math.isnan(value):
        return "–"
    factor, suffix = _UNITS[unit]
    return f"{round(value * factor, 2):g}{suffix}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--observability", type=Path, default=Path("deploy/observability"))
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/dashboard"), metavar="FOLDER")
    options = parser.parse_args()
    try:
        # What needs a GPU or a cluster has nothing to show here.
        panels = [each for each in read_panels(options.observability / "dashboard.json") if "(needs" not in each.row]
        groups = read_groups(options.observability, CPU_OBJECTIVES, FASTER)
        with EmbeddedTriton(options.repository, drain_seconds=1) as server:
            with local_prometheus([target(server.metrics_url)], groups, faster=FASTER) as prometheus:
                phases = _load(server.grpc_url)
                fired = "\n".join(f"| {phase} | {_fired(prometheus, end)} |" for phase, end in phases.items())
                values = table(prometheus, panels, phases)
            with DeepfakeClient(server.grpc_url) as client:
                machine = f"{processor_name()}, {cores()} cores, {weights(client)}"
    except (EmbeddedTritonError, PrometheusError) as error:
        sys.exit(f"dashboard: {error}")
    report = _HEAD.format(machine=machine, fired=fired) + values
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "values.md").write_text(report, encoding="utf-8")
    print(report, end="")


def _load(url: str) -> dict[str, float]:
    phases = {}
    with Callers(url, mixed=True):
        for phase, callers in PHASES.items():
            with Callers(url, callers, pause_seconds=0):
                time.sleep(PHASE_SECONDS)
                phases[phase] = time.time()
    return phases


def _fired(prometheus: Prometheus, moment: float) -> str:
    alerts = {labels["alertname"] for labels, _ in prometheus.query('ALERTS{alertstate="firing"}', moment)}
    return ", ".join(sorted(alerts)) or "none"


if __name__ == "__main__":
    main()
