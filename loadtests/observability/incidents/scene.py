"""What a fault happens to: one or two servers, callers, and a Prometheus that runs faster than its clock."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError

from loadtests.capacity.triton_metrics import MODEL, scrape
from loadtests.observability import CPU_OBJECTIVES, LocalPrometheus, Target

from .callers import Callers
from .kubelet import watching

#: A measured latency objective is so many times what a request of the callers takes in a healthy server: a full queue and
#: the slowed model take longer, and a machine that has something else to do for a moment does not.
TIMES_HEALTHY = 8
_HEALTHY_SECONDS = 5.0
#: Of each queue, for each priority level. The 256 that are usual take longer to answer than the queue's timeout on a slow
#: machine, and not on a fast one; these are answered in time on any, so that it is the same fault everywhere.
QUEUE_REQUESTS = 64
_QUEUE_SIZE = re.compile(r"(max_queue_size: )\d+")


@dataclass
class Replica:
    """A server and the model repository that it alone serves."""

    server: EmbeddedTriton
    repository: Path

    @property
    def model_file(self) -> Path:
        """TorchScript of version 1."""
        return self.repository / "deepfake_vs_real" / "1" / "model.pt"


@dataclass
class Scene:
    """All that runs while one fault is played."""

    replicas: list[Replica]
    callers: Callers
    prometheus: LocalPrometheus
    resources: contextlib.ExitStack
    """Ends what a fault started, before all else."""


@contextlib.contextmanager
def staged(
    repository: Path,
    rules: Path,
    folder: Path,
    *,
    faster: int,
    replicas: int,
    poll_seconds: int,
    kubelet: bool,
    measured_latency: bool,
) -> Iterator[Scene]:
    """Start it all, with copies of `repository` in `folder`.

    Args:
        faster: how many times faster than in a cluster Prometheus runs.
        replicas: servers; the callers know the first.
        poll_seconds: how often the servers look for new versions.
        kubelet: let Prometheus also see the servers' readiness under Kubernetes' names.
        measured_latency: take TIMES_HEALTHY as the latency objective, and not the five seconds for CPUs.

    Raises:
        EmbeddedTritonError: a server does not start, or answers nobody.
        PrometheusError: Prometheus does not start.
    """
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(replicas):
            copy = Path(shutil.copytree(repository, folder / f"replica-{number + 1}"))
            for configuration in (*copy.glob("*/config.pbtxt"), *copy.glob("*/configs/cpu.pbtxt")):
                configuration.write_text(_QUEUE_SIZE.sub(rf"\g<1>{QUEUE_REQUESTS}", configuration.read_text()))
            server = EmbeddedTriton(copy, poll_seconds=poll_seconds, drain_seconds=1, log=io.StringIO())
            server.start()
            stack.callback(server.kill)
            started.append(Replica(server, copy))
        pods = {f"triton-{number}": replica.server for number, replica in enumerate(started, 1)}
        targets = [
            Target(server.metrics_url.removeprefix("http://").removesuffix("/metrics"), pod=pod)
            for pod, server in pods.items()
        ]
        if kubelet:
            address = stack.enter_context(watching({pod: server.http_url for pod, server in pods.items()}))
            targets.append(Target(address, pod="kube-state-metrics", job="kube-state-metrics"))
        callers = stack.enter_context(Callers(started[0].server.grpc_url))
        objectives = {**CPU_OBJECTIVES, "deepfake:queue_limit:requests": float(QUEUE_REQUESTS)}
        if measured_latency:
            healthy = _healthy_seconds(started[0].server.metrics_url)
            objectives["deepfake:latency_objective:seconds"] = TIMES_HEALTHY * healthy
        prometheus = LocalPrometheus(targets, rules, objectives=objectives, faster=faster)
        stack.enter_context(prometheus)
        yield Scene(started, callers, prometheus, stack.enter_context(contextlib.ExitStack()))


def _healthy_seconds(metrics_url: str) -> float:
    """Mean time in the server of what the callers send while nothing is broken."""
    before = scrape(metrics_url).models[MODEL]
    time.sleep(_HEALTHY_SECONDS)
    growth = scrape(metrics_url).models[MODEL].since(before)
    if not growth.requests:
        raise EmbeddedTritonError(
            f"the server answered nothing in {_HEALTHY_SECONDS:.0f} s; run this when the machine has less to do"
        )
    return (growth.queue_us + growth.compute_us) / growth.requests / 1e6
