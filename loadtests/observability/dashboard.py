"""What the dashboard shows under load, as a table and a picture.

    python -m loadtests.observability.dashboard [--repository model_repository] [--output loadtests/results/dashboard]

Starts an embedded Triton (with summaries and a response cache) and a Prometheus with the rules of deploy/observability,
puts a light load on the server, then as much as it does, then more than its queue holds, and evaluates every panel's
expressions at the end of each. Grafana itself is not run. Panels that need a GPU or a cluster get made-up series and are
marked so.

Prometheus runs `--faster` times as fast as in a cluster, so that a phase of a minute is six there; rates are per real second.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.capacity.resources import cores, processor_name
from loadtests.observability import CPU_OBJECTIVES, LocalPrometheus, PrometheusError, Target
from loadtests.observability.dashboard_parts.cluster_stand_in import exporting
from loadtests.observability.dashboard_parts.load import mixed_load
from loadtests.observability.dashboard_parts.panels import Panel, read_panels
from loadtests.observability.dashboard_parts.picture import draw
from loadtests.observability.dashboard_parts.table import Values, read_values, render
from loadtests.observability.incidents.callers import Callers

#: Name → callers who send one image after the other, beside the light load.
PHASES = {"light": 0, "at capacity": 8, "overload": 400}
_LIGHT_PAUSE_SECONDS = 1.0
_CACHE_BYTES = 64 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--observability", type=Path, default=Path("deploy/observability"))
    parser.add_argument("--output", type=Path, default=Path("loadtests/results/dashboard"), metavar="FOLDER")
    parser.add_argument("--faster", type=int, default=6, help="than a cluster's (default: %(default)s)")
    parser.add_argument("--phase-seconds", type=float, default=60.0, help="of each load (default: %(default)s)")
    options = parser.parse_args()
    panels = read_panels(options.observability / "dashboard.json", options.faster)
    server = EmbeddedTriton(
        options.repository, latency_summaries=True, response_cache_bytes=_CACHE_BYTES, drain_seconds=1
    )
    with contextlib.ExitStack() as stack:
        try:
            server.start()
            stack.callback(server.kill)
            targets = [
                Target(server.metrics_url.removeprefix("http://").removesuffix("/metrics")),
                Target(stack.enter_context(exporting()), job="stand-in", pod="stand-in"),
            ]
            prometheus = LocalPrometheus(
                targets, options.observability, objectives=CPU_OBJECTIVES, faster=options.faster
            )
            stack.enter_context(prometheus)
            weights = _weights(server.grpc_url)
            values, alerts, times = _run(server, prometheus, panels, options.phase_seconds)
            options.output.mkdir(parents=True, exist_ok=True)
            draw(prometheus, panels, times, options.output / "panels.png")
        except (EmbeddedTritonError, PrometheusError) as error:
            sys.exit(f"dashboard: {error}")
    report = _introduction(weights, options.faster, options.phase_seconds, alerts) + render(values)
    (options.output / "values.md").write_text(report)
    print(report, end="")


def _run(
    server: EmbeddedTriton, prometheus: LocalPrometheus, panels: list[Panel], phase_seconds: float
) -> tuple[dict[str, Values], dict[str, list[str]], dict[str, tuple[float, float]]]:
    """Of each phase the values at its end, the alerts that fire then, and its begin and end."""
    values: dict[str, Values] = {}
    alerts: dict[str, list[str]] = {}
    times: dict[str, tuple[float, float]] = {}
    with mixed_load(server.grpc_url, _LIGHT_PAUSE_SECONDS):
        for phase, callers in PHASES.items():
            with Callers(server.grpc_url, callers=callers, pause_seconds=0.0):
                began = time.time()
                time.sleep(phase_seconds)
                values[phase] = read_values(prometheus, panels)
                alerts[phase] = sorted({alert.name for alert in prometheus.alerts() if alert.firing})
                times[phase] = (began, time.time())
    return values, alerts, times


def _weights(url: str) -> str:
    with DeepfakeClient(url) as client:
        provenance = client.provenance()
    return f"{'stand-in weights' if provenance.stand_in else provenance.model_id} in {provenance.precision}"


def _introduction(weights: str, faster: int, phase_seconds: float, alerts: dict[str, list[str]]) -> str:
    lines = [
        "# The dashboard under load",
        "",
        f"By `make dashboard` on {processor_name()}, {cores()} cores, {weights}; Triton, "
        f"Prometheus and the load on the same machine. Every expression of `deploy/observability/dashboard.json` as a real "
        f"Prometheus answers it, {faster} times as fast as in a cluster; Grafana itself was not run. Each load lasts "
        f"{phase_seconds:.0f} s: one caller who pauses; {PHASES['at capacity']} more who do not; {PHASES['overload']} more. "
        "`panels.png` has the same over time. – stands for no value.",
        "",
        *(
            f"- Alerts that fire at the end of «{phase}»: {', '.join(names) or 'none'}"
            for phase, names in alerts.items()
        ),
        "",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
