"""What a fault happens to: one or two servers, callers, and a Prometheus that runs faster than its clock."""

from __future__ import annotations

import contextlib
import io
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.observe import CPU_OBJECTIVES, LocalPrometheus, Target

from .callers import Callers
from .kubelet import watching

#: The latency objective is so many times what a request takes at rest: a full queue and the slowed model take longer.
TIMES_AT_REST = 8
_REQUESTS_AT_REST = 10


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
    repository: Path, rules: Path, folder: Path, *, faster: int, replicas: int, poll_seconds: int, kubelet: bool
) -> Iterator[Scene]:
    """Start it all, with copies of `repository` in `folder`.

    Args:
        faster: how many times faster than in a cluster Prometheus runs.
        replicas: servers; the callers know the first.
        poll_seconds: how often the servers look for new versions.
        kubelet: let Prometheus also see the servers' readiness under Kubernetes' names.
    """
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(replicas):
            copy = Path(shutil.copytree(repository, folder / f"replica-{number + 1}"))
            server = EmbeddedTriton(copy, poll_seconds=poll_seconds, drain_seconds=1, log=io.StringIO())
            server.start()
            stack.callback(server.kill)
            started.append(Replica(server, copy))
        targets = [
            Target(replica.server.metrics_url.removeprefix("http://").removesuffix("/metrics"), pod=f"triton-{number}")
            for number, replica in enumerate(started, 1)
        ]
        if kubelet:
            address = stack.enter_context(watching(started[0].server.http_url, pod="triton-1"))
            targets.append(Target(address, pod="kube-state-metrics", job="kube-state-metrics"))
        objectives = {
            **CPU_OBJECTIVES,
            "deepfake:latency_objective:seconds": TIMES_AT_REST * _seconds_at_rest(started[0].server.grpc_url),
        }
        prometheus = LocalPrometheus(targets, rules, objectives=objectives, faster=faster)
        callers = stack.enter_context(Callers(started[0].server.grpc_url))
        stack.enter_context(prometheus)
        yield Scene(started, callers, prometheus, stack.enter_context(contextlib.ExitStack()))


def _seconds_at_rest(url: str) -> float:
    """Mean time of a request when nobody else calls."""
    pixels = np.random.default_rng(0).integers(0, 256, (_REQUESTS_AT_REST, 224, 224, 3), dtype=np.uint8)
    with DeepfakeClient(url) as client:
        client.classify_pixels(pixels[0])  # learns the labels
        began = time.monotonic()
        for image in pixels:
            client.classify_pixels(image)
    return (time.monotonic() - began) / _REQUESTS_AT_REST
