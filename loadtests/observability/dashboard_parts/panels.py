"""The dashboard's panels and their expressions, with Grafana's variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMESPACE, POD = "deepfake", "triton-local"
_SCRAPE_SECONDS = 15
_HOUR_SECONDS = 3600
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Query:
    """One expression of a panel."""

    expression: str
    legend: str

    def name(self, labels: Mapping[str, str]) -> str:
        """What Grafana writes beside a series."""
        return _PLACEHOLDER.sub(lambda found: labels.get(found[1], ""), self.legend).strip()


@dataclass(frozen=True)
class Panel:
    """A panel with the title of the row it is in."""

    row: str
    title: str
    unit: str
    """Grafana's name of it: short, percentunit, reqps, cps, s, bytes, watt or celsius."""
    queries: tuple[Query, ...]


def read_panels(dashboard: Path, faster: int) -> list[Panel]:
    """All panels from top to bottom, those of closed rows included.

    Args:
        dashboard: dashboard.json.
        faster: how many times faster than in a cluster Prometheus runs.
    """
    panels, row = [], ""
    for entry in json.loads(dashboard.read_text())["panels"]:
        if entry["type"] == "row":
            row = entry["title"].replace("$pod", POD)
        for panel in _panels_of(entry):
            queries = tuple(
                Query(fill_in(target["expr"], faster), target["legendFormat"]) for target in panel["targets"]
            )
            panels.append(Panel(row, panel["title"], panel["fieldConfig"]["defaults"]["unit"], queries))
    return panels


def fill_in(expression: str, faster: int) -> str:
    """`expression` with this module's namespace and pod, and windows for a Prometheus that is so many times faster."""
    rate_interval = max(4 * _SCRAPE_SECONDS // faster, 2)  # Grafana takes four scrapes
    return (
        expression.replace("$namespace", NAMESPACE)
        .replace("$pod", POD)
        .replace("$__rate_interval", f"{rate_interval}s")
        .replace("[1h]", f"[{_HOUR_SECONDS // faster}s]")
    )


def _panels_of(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from entry.get("panels", []) if entry["type"] == "row" else [entry]
