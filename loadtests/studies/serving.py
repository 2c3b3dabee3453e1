"""Models and model repositories for one measurement, and an embedded Triton under load."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal
from unittest import mock

import psutil
from deepfake_client import DeepfakeClient
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.export import MODEL_NAME, Precision, export_model
from deepfake_deploy.export.checkpoint import open_checkpoint
from deepfake_deploy.export.contract import read_labels
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtests.capacity.resources import Usage, family
from loadtests.capacity.triton_metrics import MODEL, ModelCounters, scrape
from loadtests.traffic.generator import Generators, Load
from loadtests.traffic.loops import answers_per_second, percentile

#: Loads a server for so many seconds; returns the figures of `serve`.
Measure = Callable[[float], dict[str, float]]


class Silent:
    """`deepfake_deploy.export.Progress` that nobody watches."""

    def step(self, description: str) -> None: ...

    def advance(self) -> None: ...

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()


@contextlib.contextmanager
def checkpoint_folder(model: str, repository: Path) -> Iterator[Path]:
    """The checkpoint named by a Hub id, a folder or "stand-in", with the labels of the model repository."""
    with open_checkpoint(model, None, read_labels(repository), Silent()) as checkpoint:
        yield checkpoint.folder


def export(model: str, precision: Precision | None, source: Path, target: Path) -> tuple[Path, Precision]:
    """Copies the model repository `source` to `target` and exports the model into it; returns model.pt.

    Args:
        precision: None for what is fastest here.
    """
    shutil.copytree(source, target, ignore=without_versions)
    exported = export_model(model, None, precision, target, Silent())
    return exported.path, exported.precision


def without_versions(folder: str, names: list[str]) -> list[str]:
    """For shutil.copytree: leaves the weights out."""
    return [name for name in names if Path(folder).name == MODEL_NAME and name.lstrip(".")[:1].isdigit()]


def configuration_path(repository: Path, *, gpu: bool = False, model: str = MODEL_NAME) -> Path:
    """What the server reads with a GPU, and without."""
    folder = repository / model
    return folder / "config.pbtxt" if gpu else folder / "configs" / "cpu.pbtxt"


def read_configuration(path: Path) -> ModelConfig:
    """A parsed config.pbtxt."""
    return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())


def saturating(repository: Path, *, gpu: bool = False) -> int:
    """Callers for the batch that computes and for two that wait."""
    return 3 * int(read_configuration(configuration_path(repository, gpu=gpu)).max_batch_size)


def weights_of(client: DeepfakeClient) -> str:
    """What a server says that it serves."""
    provenance = client.provenance()
    return "unknown" if provenance is None else f"{provenance.model_id}, {provenance.precision}"


@contextlib.contextmanager
def serve(
    repository: Path,
    callers: int,
    *,
    payload: Literal["pixels", "image"] = "pixels",
    generators: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Measure]:
    """A server on `repository` with callers in a closed loop: pixels over gRPC, or image files over HTTP.

    A round has `images_per_second`, `p50_ms`, `p99_ms`; the mean `batch` and a request's mean `queue_ms` and
    `compute_ms`; `busy`, the share of the time in which the backend computed, over 1 with several instances;
    `generator_cores` and the server's `memory_mib`.

    Args:
        generators: client processes.
        environment: of the server, over this process's own.
    """
    with contextlib.ExitStack() as stack:
        with mock.patch.dict(os.environ, environment or {}):
            server = stack.enter_context(EmbeddedTriton(repository))
        with DeepfakeClient(server.grpc_url) as client:
            labels = frozenset(client.model_info().labels)
        url = server.grpc_url if payload == "pixels" else server.http_url
        processes = stack.enter_context(Generators(Load(url, labels, payload), generators))
        yield lambda seconds: _round(server, processes, callers, seconds)


def _round(server: EmbeddedTriton, generators: Generators, callers: int, seconds: float) -> dict[str, float]:
    began: list[tuple[Usage, ModelCounters, float]] = []

    def begin() -> None:
        began.append((Usage(None, generators.pids), scrape(server.metrics_url).models[MODEL], time.monotonic()))

    samples = generators.closed_loop(callers, seconds, begin)
    usage, before, since = began[0]
    counters, elapsed = scrape(server.metrics_url).models[MODEL].since(before), time.monotonic() - since
    if failures := [cause for sample in samples for cause in sample.failures]:
        raise ValueError(f"a request failed under load ({failures[0]}); see the server's log")
    latencies = [latency for sample in samples for latency in sample.latencies_ms]
    return {
        "images_per_second": sum(answers_per_second(sample.answered_at) for sample in samples),
        "p50_ms": percentile(latencies, len(latencies), 0.50),
        "p99_ms": percentile(latencies, len(latencies), 0.99),
        "batch": counters.batch or 0.0,
        "queue_ms": counters.queue_ms or 0.0,
        "compute_ms": counters.compute_ms or 0.0,
        "busy": counters.busy(elapsed) or 0.0,
        "generator_cores": sum(usage.cores()[2]),
        "memory_mib": memory_mib(server.pid),
    }


def memory_mib(pid: int) -> float:
    """Proportional set size of a process and its descendants: a page that several share counts once."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total / 2**20
