"""The configuration of a Prometheus that has no operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .rules import read_groups


@dataclass(frozen=True)
class Target:
    """What is scraped, with the labels that the PodMonitor `triton` gives in a cluster."""

    address: str
    """host:port; the path is /metrics."""
    pod: str = "triton-local"
    namespace: str = "deepfake"
    job: str = "deepfake-vs-real"


def write_configuration(
    folder: Path,
    targets: Sequence[Target],
    rules_folder: Path,
    objectives: Mapping[str, float],
    scrape_interval: str,
    faster: int,
) -> Path:
    """Write prometheus.yml and the rules that it names into `folder`, and return its path.

    Raises:
        PrometheusError: `rules_folder` holds no rules.
    """
    rules = folder / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": read_groups(rules_folder, objectives, faster)}))
    jobs: dict[str, list[dict[str, Any]]] = {}
    for target in targets:
        labels = {"namespace": target.namespace, "pod": target.pod}
        jobs.setdefault(target.job, []).append({"targets": [target.address], "labels": labels})
    configuration = {
        "global": {"scrape_interval": scrape_interval, "scrape_timeout": scrape_interval},
        "rule_files": [str(rules)],
        # Labels that a target's own series carry win, as with the exporters' usual settings in a cluster.
        "scrape_configs": [
            {"job_name": job, "honor_labels": True, "static_configs": targets} for job, targets in jobs.items()
        ],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    return path
