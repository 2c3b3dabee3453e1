"""Real faults, a real Prometheus, and the alerts that come of them.

    python -m loadtests.observability.faults [--repository model_repository] [--only FAULT …]

For each fault: starts embedded Tritons with a light load and a Prometheus with the rules of deploy/observability, waits
until all is quiet, breaks something, and prints which alerts fire and when. Exits with 1 when one that is expected does
not fire, or any other does, before the fault or in the twenty minutes after it.

Prometheus runs `--faster` times as fast as in a cluster: at 20 a minute of the rules is three seconds long. Queues hold 32
requests. The objectives are those for CPUs; for the two faults of latency it is eight times what a healthy server took.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.capacity.resources import cores, processor_name
from loadtests.capacity.triton_metrics import MODEL, scrape
from loadtests.observability.exporters import exporting, readiness_series
from loadtests.observability.load import Callers
from loadtests.observability.prometheus import LocalPrometheus, Target
from loadtests.observability.rules import CPU_OBJECTIVES, PrometheusError

# The usual 256 take longer to answer than the queue's timeout on a slow machine; these do not, unless it is very busy.
QUEUE_REQUESTS, FLOOD_CALLERS = 32, 80
# The stub answers Triton's question whether it is healthy several times a second; frozen for longer it counts as dead.
FROZEN_SECONDS, RUNNING_SECONDS = 0.25, 0.012
# The faults exceed this multiple of a healthy server's latency; a machine that is busy for a moment does not.
TIMES_HEALTHY = 8
_HEALTHY_SECONDS = 5.0
_PATIENCE_SECONDS = 180.0


@dataclass
class Testbed:
    """All that runs while one fault is played; `models` has the folder of the classifier's versions of each server."""

    servers: list[EmbeddedTriton]
    models: list[Path]
    callers: Callers
    prometheus: LocalPrometheus
    resources: ExitStack
    """Ends what a fault started, before all else."""


@dataclass(frozen=True)
class Fault:
    """What is broken, in a sentence, and the alerts that must fire within twenty minutes of the rules; no other may."""

    what: str
    fires: tuple[str, ...]
    inject: Callable[[Testbed], None]
    replicas: int = 1
    """Servers; the callers know the first."""
    polling: bool = False
    """The servers look for new versions, and Prometheus sees their readiness as a kubelet does."""
    measured_latency: bool = False
    """Measure the latency objective, in place of the five seconds for CPUs."""


def _restart_with_broken_model(testbed: Testbed) -> None:
    testbed.servers[-1].kill()
    (testbed.models[-1] / "1" / "model.pt").write_bytes(b"no TorchScript")
    with suppress(EmbeddedTritonError):
        testbed.servers[-1].start()


def _add_broken_version(testbed: Testbed) -> None:
    version = testbed.models[-1] / "2"
    version.mkdir()
    (version / "model.pt").write_bytes(b"no TorchScript")


def _slow_down(testbed: Testbed) -> None:
    workers, end = _workers(testbed), threading.Event()

    def freeze() -> None:
        while not end.wait(RUNNING_SECONDS):
            for worker in workers:
                worker.send_signal(signal.SIGSTOP)
            end.wait(FROZEN_SECONDS)
            for worker in workers:
                worker.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=freeze, name="freeze")
    thread.start()
    testbed.resources.callback(thread.join)
    testbed.resources.callback(end.set)


def _workers(testbed: Testbed) -> list[psutil.Process]:
    """The first server's stubs of the classifier, one for each instance."""
    children = psutil.Process(testbed.servers[0].pid).children()
    return [child for child in children if any(f"/{MODEL}/" in word for word in child.cmdline())]


FAULTS = {
    "overload": Fault(
        f"{FLOOD_CALLERS} callers at once",
        ("TritonQueueFull", "TritonLatencyBudgetBurnsFast"),
        lambda testbed: testbed.callers.flood(FLOOD_CALLERS),
        measured_latency=True,
    ),
    "killed-worker": Fault(
        "a worker process of deepfake_vs_real is killed, and nobody ends the server",
        ("TritonModelFails", "TritonErrorBudgetBurnsFast"),
        lambda testbed: _workers(testbed)[0].kill(),
    ),
    "stopped-server": Fault(
        "the only server is killed",
        ("TritonNoReadyReplica",),
        lambda testbed: psutil.Process(testbed.servers[0].pid).kill(),
    ),
    "broken-model": Fault(
        "one of two replicas is restarted with a model.pt that does not load",
        ("TritonReplicaNotScraped",),
        _restart_with_broken_model,
        replicas=2,
    ),
    "broken-version": Fault(
        "the only server polls and finds a new version that does not load",
        ("TritonNoReadyReplica",),
        _add_broken_version,
        polling=True,
    ),
    "broken-version-on-one": Fault(
        "the same with one of two servers",
        ("TritonReplicaNotReady",),
        _add_broken_version,
        replicas=2,
        polling=True,
    ),
    "slow-inference": Fault(
        f"the workers of deepfake_vs_real run {RUNNING_SECONDS * 1000:.0f} of every "
        f"{(RUNNING_SECONDS + FROZEN_SECONDS) * 1000:.0f} ms",
        ("TritonLatencyBudgetBurnsFast",),
        _slow_down,
        measured_latency=True,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--rules", type=Path, default=Path("deploy/observability"))
    parser.add_argument("--faster", type=int, default=20, help="than a cluster's (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), metavar="FAULT", help=f"of: {', '.join(FAULTS)}")
    parser.add_argument(
        "--settling-minutes", type=float, default=7.0, help="by the rules' clock (default: %(default)s)"
    )
    parser.add_argument("--watching-minutes", type=float, default=20.0, help="by the same clock (default: %(default)s)")
    options = parser.parse_args()
    minute, good = 60 / options.faster, True
    print(f"{processor_name()}, {cores()} cores, Triton, Prometheus and the load on the same machine")
    print(f"Prometheus {options.faster} times as fast: {minute:.3g} s here are a minute there", flush=True)
    try:
        for name in options.only or FAULTS:
            with _testbed(FAULTS[name], options.repository, options.rules, options.faster) as testbed:
                time.sleep(options.settling_minutes * minute)
                good &= _play(name, testbed, options.watching_minutes * minute, minute)
    except (EmbeddedTritonError, PrometheusError) as error:
        sys.exit(f"faults: {error}")
    sys.exit(0 if good else 1)


@contextmanager
def _testbed(fault: Fault, repository: Path, rules: Path, faster: int) -> Iterator[Testbed]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deepfake-faults-")))
        copies = [_copy(repository, folder / str(number)) for number in range(fault.replicas)]
        servers = []
        for copy in copies:
            server = EmbeddedTriton(copy, poll_seconds=5 if fault.polling else 0, drain_seconds=1, log=io.StringIO())
            server.start()
            stack.callback(server.kill)
            servers.append(server)
        pods = {f"triton-{number}": server for number, server in enumerate(servers, 1)}
        targets = [Target(server.metrics_url, pod) for pod, server in pods.items()]
        if fault.polling:
            urls = {pod: server.http_url for pod, server in pods.items()}
            exporter = stack.enter_context(exporting(lambda: readiness_series(urls)))
            targets.append(Target(exporter, "kube-state-metrics", job="kube-state-metrics"))
        callers = stack.enter_context(Callers(servers[0].grpc_url, callers=2))
        objectives = {**CPU_OBJECTIVES, "deepfake:queue_limit:requests": float(QUEUE_REQUESTS)}
        if fault.measured_latency:
            objectives["deepfake:latency_objective:seconds"] = TIMES_HEALTHY * _healthy_seconds(servers[0].metrics_url)
        prometheus = stack.enter_context(LocalPrometheus(targets, rules, objectives=objectives, faster=faster))
        resources = stack.enter_context(ExitStack())
        yield Testbed(servers, [copy / MODEL for copy in copies], callers, prometheus, resources)


def _copy(repository: Path, destination: Path) -> Path:
    shutil.copytree(repository, destination)
    for configuration in (*destination.glob("*/config.pbtxt"), *destination.glob("*/configs/cpu.pbtxt")):
        text = re.sub(r"(max_queue_size: )\d+", rf"\g<1>{QUEUE_REQUESTS}", configuration.read_text())
        configuration.write_text(text)
    return destination


def _healthy_seconds(metrics_url: str) -> float:
    """Mean time in the server of what the callers send while nothing is broken."""
    before = scrape(metrics_url).models[MODEL]
    time.sleep(_HEALTHY_SECONDS)
    growth = scrape(metrics_url).models[MODEL].since(before)
    if growth.queue_ms is None or growth.compute_ms is None:
        raise EmbeddedTritonError("the server answered nothing; run this when the machine has less to do")
    return (growth.queue_ms + growth.compute_ms) / 1000


def _play(name: str, testbed: Testbed, watching_seconds: float, minute: float) -> bool:
    """Break it, watch, and print what fired; whether that was what should."""
    fault = FAULTS[name]
    too_early = set(testbed.prometheus.firing())
    fired: set[str] = set()
    print(f"{name}: {fault.what}", flush=True)
    began = time.monotonic()
    fault.inject(testbed)
    while (passed := time.monotonic() - began) < watching_seconds or (
        passed < _PATIENCE_SECONDS and not fired.issuperset(fault.fires)
    ):
        for alert, description in testbed.prometheus.firing().items():
            if alert not in fired:
                print(f"  {passed:5.1f} s = {passed / minute:4.1f} min  {alert} {description}", flush=True)
                fired.add(alert)
        time.sleep(0.2)
    silent = ", ".join(alert for alert in fault.fires if alert not in fired)
    others = ", ".join(sorted(too_early | (fired - set(fault.fires))))
    print(f"  expected and silent: {silent or 'none'}; fired and not expected: {others or 'none'}", flush=True)
    return not silent and not others


if __name__ == "__main__":
    main()
