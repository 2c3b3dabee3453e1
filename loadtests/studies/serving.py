"""Models and model repositories for one measurement, and an embedded Triton under load."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import psutil
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.export import MODEL_NAME, Precision, export_model
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtests.capacity.resources import Usage, family
from loadtests.capacity.triton_metrics import MODEL, ModelCounters, scrape
from loadtests.traffic.generator import Generators, Load
from loadtests.traffic.loops import Sample, answers_per_second, percentile


class Silent:
    """`deepfake_deploy.export.Progress` that nobody watches."""

    def step(self, description: str) -> None: ...

    def advance(self) -> None: ...

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()


def export(
    model: str, revision: str | None, precision: Precision | None, source: Path, target: Path
) -> tuple[Path, Precision]:
    """Copies the model repository `source` to `target` and exports the model into it; returns model.pt.

    Args:
        precision: None for what is fastest here.
    """
    shutil.copytree(source, target, ignore=without_versions)
    exported = export_model(model, revision, precision, target, Silent())
    return exported.path, exported.precision


def configuration_path(repository: Path, *, gpu: bool = False, model: str = MODEL_NAME) -> Path:
    """What the server reads with a GPU, and without."""
    folder = repository / model
    return folder / "config.pbtxt" if gpu else folder / "configs" / "cpu.pbtxt"


def read_configuration(path: Path) -> ModelConfig:
    """A parsed config.pbtxt."""
    return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())


def max_batch_size(repository: Path, *, gpu: bool = False) -> int:
    """Of the classifier, as the server reads it."""
    return int(read_configuration(configuration_path(repository, gpu=gpu)).max_batch_size)


@dataclass(frozen=True, slots=True)
class ServedRun:
    """One round of a server under load. Times in ms."""

    images_per_second: float
    p50_ms: float
    p99_ms: float
    batch: float
    """Mean images of an execution."""
    queue_ms: float
    compute_ms: float
    busy: float
    """Share of the time in which the backend computed; over 1 with several instances."""
    generator_cores: float
    memory_mib: float
    """Of the server's processes together; a page that several share counts once."""


class Served:
    """A running server and what loads it; made by `serve`."""

    def __init__(self, server: EmbeddedTriton, generators: Generators, callers: int) -> None:
        self._server, self._generators, self._callers = server, generators, callers

    def measure(self, seconds: float) -> ServedRun:
        """Loads it for `seconds`, once its queue has filled."""
        began: list[tuple[Usage, ModelCounters, float]] = []
        samples = self._generators.closed_loop(
            self._callers,
            seconds,
            lambda: began.append((Usage(None, self._generators.pids), self._counters(), time.monotonic())),
        )
        (usage, before, since) = began[0]
        counters, elapsed = self._counters().since(before), time.monotonic() - since
        latencies = _latencies(samples)
        return ServedRun(
            images_per_second=sum(answers_per_second(sample.answered_at) for sample in samples),
            p50_ms=percentile(latencies, len(latencies), 0.50),
            p99_ms=percentile(latencies, len(latencies), 0.99),
            batch=counters.batch or 0.0,
            queue_ms=counters.queue_ms or 0.0,
            compute_ms=counters.compute_ms or 0.0,
            busy=counters.busy(elapsed) or 0.0,
            generator_cores=sum(usage.cores()[2]),
            memory_mib=memory_mib(self._server.pid),
        )

    def _counters(self) -> ModelCounters:
        return scrape(self._server.metrics_url).models[MODEL]


@contextlib.contextmanager
def serve(
    repository: Path,
    callers: int,
    *,
    payload: Literal["pixels", "image"] = "pixels",
    generators: int = 1,
    environment: Mapping[str, Any] | None = None,
) -> Iterator[Served]:
    """A server on `repository` with callers in a closed loop: pixels over gRPC, or image files over HTTP.

    Args:
        generators: client processes.
        environment: of the server, over this process's own.
    """
    server = EmbeddedTriton(repository)
    with mock.patch.dict(os.environ, environment or {}):
        server.start()
    try:
        with DeepfakeClient(server.grpc_url) as client:
            labels = frozenset(client.model_info().labels)
        url = server.grpc_url if payload == "pixels" else server.http_url
        with Generators(Load(url, labels, payload), generators) as processes:
            yield Served(server, processes, callers)
    finally:
        server.stop()


def saturating(max_batch_size: int) -> int:
    """Callers for the batch that computes and for two that wait."""
    return 3 * max_batch_size


def memory_mib(pid: int) -> float:
    """Proportional set size of a process and its descendants."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total / 2**20


def _latencies(samples: list[Sample]) -> list[float]:
    if failures := [cause for sample in samples for cause in sample.failures]:
        raise ValueError(f"a request failed under load ({failures[0]}); see the server's log")
    return [latency for sample in samples for latency in sample.latencies_ms]


def without_versions(folder: str, names: list[str]) -> list[str]:
    """For shutil.copytree: leaves the weights out."""
    return [name for name in names if Path(folder).name == MODEL_NAME and name.lstrip(".")[:1].isdigit()]
