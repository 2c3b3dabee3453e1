"""The embedded Triton at saturation: distinct pixels over gRPC, always enough of them waiting for the next full batch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton

from loadtests.capacity.generator import Generators, Load
from loadtests.capacity.triton_metrics import MODEL, ModelCounters, scrape
from loadtests.traffic.rate import answers_per_second

# Full batches in the queue while one computes.
_WAITING_BATCHES = 2
_SETTLE_SHARE = 0.2
_DEADLINE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ServedRun:
    """One round."""

    images_per_second: float
    batch: float
    """Mean images of an execution."""
    queue_ms: float
    compute_ms: float
    busy: float
    """Share of the time in which the backend computed; over 1 with several instances."""
    generators_cores: float
    memory_mib: float
    """Of the server and its stubs together."""


class Served:
    """A running server and what loads it; made by `serve_saturated`."""

    def __init__(self, server: EmbeddedTriton, generators: Generators, callers: int) -> None:
        self._server, self._generators, self._callers = server, generators, callers

    def measure(self, seconds: float) -> ServedRun:
        """Load it for `seconds`, of which the first fifth does not count.

        In a round too short for two batches there is no rate; it is then made twice as long, and twice as long again.

        Raises:
            ChildProcessError: a load generator ended.
            ValueError: a request failed, or even then there were no two batches.
        """
        for factor in (1, 2, 4):
            run = self._round(seconds * factor)
            if run.images_per_second > 0:
                return run
        raise ValueError(f"no two batches were answered in {4 * seconds:g} s; free the machine, or take more seconds")

    def _round(self, seconds: float) -> ServedRun:
        began = time.monotonic()
        measure_from, end = began + seconds * _SETTLE_SHARE, began + seconds
        self._generators.probe(max(1, self._callers // self._generators.count), measure_from, end)
        time.sleep(max(measure_from - time.monotonic(), 0))
        before, used, looked = self._counters(), self._generator_seconds(), time.monotonic()
        time.sleep(max(end - time.monotonic(), 0))
        counters, elapsed = self._counters().since(before), time.monotonic() - looked
        cores = (self._generator_seconds() - used) / elapsed
        samples = self._generators.collect(_DEADLINE_SECONDS + seconds)
        if failures := [cause for sample in samples for cause in sample.failures]:
            raise ValueError(f"a request failed under load ({failures[0]}); see the server's log")
        answered = [at for sample in samples for at in sample.answered_at if measure_from <= at <= end]
        execution_seconds = (counters.compute_ms or 0.0) / 1000 * counters.executions
        return ServedRun(
            images_per_second=answers_per_second(answered),
            batch=counters.batch or 0.0,
            queue_ms=counters.queue_ms or 0.0,
            compute_ms=counters.compute_ms or 0.0,
            busy=execution_seconds / elapsed,
            generators_cores=cores,
            memory_mib=self._memory_mib(),
        )

    def _counters(self) -> ModelCounters:
        return scrape(self._server.metrics_url).models[MODEL]

    def _generator_seconds(self) -> float:
        times = [psutil.Process(pid).cpu_times() for pid in self._generators.pids]
        return float(sum(each.user + each.system for each in times))

    def _memory_mib(self) -> float:
        server = psutil.Process(self._server.pid)
        return sum(each.memory_full_info().uss for each in (server, *server.children(recursive=True))) / 2**20


@contextlib.contextmanager
def serve_saturated(
    repository: Path, max_batch_size: int, *, generators: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """A server on `repository`, with callers for the batch that computes and for two that wait.

    Args:
        max_batch_size: of the repository's classifier.
        generators: client processes.
        environment: of the server, over this process's own.

    Raises:
        EmbeddedTritonError: it does not start.
    """
    callers = max_batch_size * (1 + _WAITING_BATCHES)
    with _environment(environment or {}):
        server = EmbeddedTriton(repository)
        server.start()
    try:
        with DeepfakeClient(server.grpc_url) as client:
            labels = frozenset(client.model_info().labels)
        load = Load(server.grpc_url, "pixels", 512, (), 0.0, labels, 1.0, _DEADLINE_SECONDS)
        with Generators(load, generators) as processes:
            processes.wait_until_ready()
            yield Served(server, processes, callers)
    finally:
        server.stop()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
