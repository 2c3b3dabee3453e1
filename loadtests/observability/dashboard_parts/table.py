"""A table of what the panels show in each phase of a load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from loadtests.observability import LocalPrometheus

from .panels import Panel

#: Rows whose series a machine without a cluster and a GPU cannot have: see cluster_stand_in.py.
MADE_UP = ("GPU", "Replicas and autoscaler")
Values = dict[tuple[Panel, str], float]


def made_up(panel: Panel) -> bool:
    """Whether the panel's series come from cluster_stand_in.py."""
    return panel.row.startswith(MADE_UP)


def read_values(prometheus: LocalPrometheus, panels: Sequence[Panel]) -> Values:
    """Panel and series → value, now; every expression has at least one entry."""
    values: Values = {}
    for panel in panels:
        for query in panel.queries:
            series = prometheus.query(query.expression) or [({}, math.nan)]
            named = {query.name(labels): value for labels, value in series}
            values.update({(panel, name): named[name] for name in sorted(named)})
    return values


def render(phases: Mapping[str, Values]) -> str:
    """Markdown: a section for each row of the dashboard, a line for each series, a column for each phase."""
    panels = list(dict.fromkeys(panel for values in phases.values() for panel, _ in values))
    found = dict.fromkeys(key for values in phases.values() for key in values)
    keys = sorted(found, key=lambda key: panels.index(key[0]))  # the series of a panel stay in the order of its queries
    lines: list[str] = []
    row = None
    for panel, series in keys:
        if panel.row != row:
            row = panel.row
            made = " — made-up figures, to show the panels" if made_up(panel) else ""
            lines += ["", f"## {row}{made}", "", f"| panel | series | {' | '.join(phases)} |"]
            lines += ["|---|---|" + "---:|" * len(phases)]
        shown = [formatted(values.get((panel, series), math.nan), panel.unit) for values in phases.values()]
        lines.append(f"| {panel.title} | {series} | {' | '.join(shown)} |")
    return "\n".join(lines[1:]) + "\n"


def formatted(value: float, unit: str) -> str:
    """`value` as Grafana would write it in that unit; – where there is none."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"
    if unit == "bytes":
        return f"{value / 2**30:.1f} GiB"
    suffix = {"reqps": "/s", "cps": "/s", "watt": " W", "celsius": " °C"}.get(unit, "")
    return (f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.2f}") + suffix
