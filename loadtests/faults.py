"""Real faults, a real Prometheus, and the alerts that come of them.

    python loadtests/faults.py [--repository model_repository] [--only FAULT …]

For each fault: starts an embedded Triton with a light load and a Prometheus with the rules of deploy/observability,
waits until all is quiet, breaks something, and writes down which alerts fire and when. Exits with 1 when one that is
expected does not fire, or one fires that is not.

Prometheus runs `--faster` times as fast as in a cluster: at 20 it scrapes every 0.75 s in place of 15, and every window,
`for` and evaluation interval of the rules is a twentieth, so that a minute is three seconds long. The expressions are the
same. The objectives are those for CPUs, but for the latency: eight times what a request takes at rest on this machine. A small
model, or a machine that has nothing else to do, allows for 60.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

import psutil
from deepfake_deploy.embedded import EmbeddedTritonError
from deepfake_deploy.observe import Alert, LocalPrometheus, PrometheusError
from incidents.faults import FAULTS, Fault
from incidents.scene import Scene, staged

WAITING_SECONDS = 180.0
POLL_SECONDS = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--rules", type=Path, default=Path("deploy/observability"))
    parser.add_argument("--faster", type=int, default=20, help="than a cluster's (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), metavar="FAULT", help=f"of: {', '.join(FAULTS)}")
    parser.add_argument(
        "--settling-seconds", type=float, default=20.0, help="of quiet before the fault (default: %(default)s)"
    )
    parser.add_argument(
        "--after-seconds", type=float, default=20.0, help="to look for further alerts (default: %(default)s)"
    )
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, Triton, Prometheus and the load on the same machine"
    )
    print(f"Prometheus {options.faster} times as fast: {60 / options.faster:.3g} s here are a minute there", flush=True)
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
                ) as scene,
            ):
                time.sleep(options.settling_seconds)
                good &= _play(name, fault, scene, options.after_seconds)
    except (EmbeddedTritonError, PrometheusError) as error:
        sys.exit(f"faults: {error}")
    sys.exit(0 if good else 1)


def _play(name: str, fault: Fault, scene: Scene, after_seconds: float) -> bool:
    """Break it, watch, and print what fired; whether that was what should."""
    too_early = {alert.name for alert in scene.prometheus.alerts() if alert.firing}
    began = time.monotonic()
    fault.inject(scene)
    fired = _watch(scene.prometheus, began, set(fault.fires), after_seconds)
    print(f"{name}: {fault.what}")
    for alert, seconds in fired.values():
        print(f"  {seconds:5.1f} s  {alert.name} ({alert.severity}): {alert.description}")
    missing = [alert for alert in fault.fires if alert not in fired]
    others = sorted(too_early | (set(fired) - set(fault.fires) - set(fault.may_follow)))
    print(
        f"  expected and silent: {', '.join(missing) or 'none'}; fired and not expected: {', '.join(others) or 'none'}"
    )
    sys.stdout.flush()
    return not missing and not others


def _watch(
    prometheus: LocalPrometheus, began: float, expected: set[str], after_seconds: float
) -> dict[str, tuple[Alert, float]]:
    """Alerts by name, with the seconds from `began` until each fired; ends some time after all that are expected have."""
    end = began + WAITING_SECONDS
    fired: dict[str, tuple[Alert, float]] = {}
    while time.monotonic() < end:
        for alert in prometheus.alerts():
            if alert.firing and alert.name not in fired:
                fired[alert.name] = (alert, time.monotonic() - began)
                if expected <= set(fired):
                    end = min(end, time.monotonic() + after_seconds)
        time.sleep(POLL_SECONDS)
    return fired


if __name__ == "__main__":
    main()
