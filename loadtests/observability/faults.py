"""Real faults, a real Prometheus, and the alerts that come of them.

    python -m loadtests.observability.faults [--repository model_repository] [--only FAULT …]

For each fault: starts an embedded Triton with a light load and a Prometheus with the rules of deploy/observability,
waits until all is quiet, breaks something, and writes down which alerts fire and when. Exits with 1 when one that is
expected does not fire, or any other does, before the fault or in the twenty minutes after it.

Prometheus runs `--faster` times as fast as in a cluster: at 20 it scrapes every 0.75 s in place of 15, and every window,
`for` and evaluation interval of the rules is a twentieth, so that a minute is three seconds long. The expressions are the
same. Queues hold 64 requests. The objectives are those for CPUs; for the two faults that are about latency it is eight
times what a healthy server took for a request just before, since a machine's own speed does not run faster with the clock. A
small model allows for 60.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from deepfake_deploy.embedded import EmbeddedTritonError

from loadtests.capacity.resources import cores, processor_name
from loadtests.observability import Alert, LocalPrometheus, PrometheusError
from loadtests.observability.incidents.faults import FAULTS, Fault
from loadtests.observability.incidents.scene import Scene, staged

PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--rules", type=Path, default=Path("deploy/observability"))
    parser.add_argument("--faster", type=int, default=20, help="than a cluster's (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), metavar="FAULT", help=f"of: {', '.join(FAULTS)}")
    parser.add_argument(
        "--settling-minutes",
        type=float,
        default=7.0,
        help="of the rules' clock, in quiet, before the fault (default: %(default)s)",
    )
    parser.add_argument(
        "--watching-minutes",
        type=float,
        default=20.0,
        help="of the rules' clock, after the fault, and longer until what is expected has fired (default: %(default)s)",
    )
    options = parser.parse_args()
    print(f"{processor_name()}, {cores()} cores, Triton, Prometheus and the load on the same machine")
    print(f"Prometheus {options.faster} times as fast: {60 / options.faster:.3g} s here are a minute there", flush=True)
    minute = 60 / options.faster
    good = True
    try:
        for name in options.only or FAULTS:
            fault = FAULTS[name]
            with (
                tempfile.TemporaryDirectory(prefix="deepfake-faults-") as folder,
                staged(
                    options.repository,
                    options.rules,
                    Path(folder),
                    faster=options.faster,
                    replicas=fault.replicas,
                    poll_seconds=fault.poll_seconds,
                    kubelet=fault.kubelet,
                    measured_latency=fault.measured_latency,
                ) as scene,
            ):
                time.sleep(options.settling_minutes * minute)
                good &= _play(name, fault, scene, options.watching_minutes * minute, minute)
    except (EmbeddedTritonError, PrometheusError) as error:
        sys.exit(f"faults: {error}")
    sys.exit(0 if good else 1)


def _play(name: str, fault: Fault, scene: Scene, watching_seconds: float, minute: float) -> bool:
    """Break it, watch, and print what fired; whether that was what should."""
    too_early = {alert.name for alert in scene.prometheus.alerts() if alert.firing}
    began = time.monotonic()
    fault.inject(scene)
    fired = _watch(scene.prometheus, began, set(fault.fires), watching_seconds)
    print(f"{name}: {fault.what}")
    for alert, seconds in fired.values():
        took = f"{seconds:5.1f} s = {seconds / minute:4.1f} min"
        print(f"  {took}  {alert.name} ({alert.severity}): {alert.description}")
    missing = [alert for alert in fault.fires if alert not in fired]
    others = sorted(too_early | (set(fired) - set(fault.fires)))
    print(
        f"  expected and silent: {', '.join(missing) or 'none'}; fired and not expected: {', '.join(others) or 'none'}"
    )
    sys.stdout.flush()
    return not missing and not others


def _watch(
    prometheus: LocalPrometheus, began: float, expected: set[str], watching_seconds: float
) -> dict[str, tuple[Alert, float]]:
    """Alerts by name, with the seconds from `began` until each fired: all in `watching_seconds`, and then until what is
    expected has fired, as long as there is patience."""
    fired: dict[str, tuple[Alert, float]] = {}
    while (passed := time.monotonic() - began) < watching_seconds or (
        not expected <= set(fired) and passed < PATIENCE_SECONDS
    ):
        for alert in prometheus.alerts():
            if alert.firing and alert.name not in fired:
                fired[alert.name] = (alert, time.monotonic() - began)
        time.sleep(POLL_SECONDS)
    return fired


if __name__ == "__main__":
    main()
