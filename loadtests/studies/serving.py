"""Model repositories to measure, and an embedded Triton under load."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import psutil
from deepfake_cli.console import StepProgress
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.installation import cuda_device_count
from deepfake_deploy.export import FIRST_VERSION, MODEL_FILE, MODEL_NAME, Precision, export_model
from deepfake_deploy.export.checkpoint import open_checkpoint
from deepfake_deploy.export.contract import read_labels
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtests.capacity.resources import family
from loadtests.capacity.triton_metrics import ModelCounters, scrape
from loadtests.traffic.generator import Generators, Load
from loadtests.traffic.loops import answers_per_second

#: Loads a server for so many seconds; returns the figures of `serve`.
Measure = Callable[[float], dict[str, float]]


@contextlib.contextmanager
def exported(
    options: argparse.Namespace, precisions: Sequence[Precision | None], folder: Path
) -> Iterator[tuple[Path, dict[Precision, Path]]]:
    """The folder of the checkpoint `--model`, and for each precision a copy of `--repository` that has it exported.

    Args:
        precisions: None for what is fastest here.
    """
    with contextlib.ExitStack() as stack:
        repositories: dict[Precision, Path] = {}
        with StepProgress() as progress:
            opening = open_checkpoint(options.model, None, read_labels(options.repository), progress)
            checkpoint = stack.enter_context(opening).folder
            for wanted in precisions:
                if wanted not in repositories:
                    target = copy_without_weights(options.repository, folder / f"exported-{wanted}")
                    precision = export_model(str(checkpoint), None, wanted, target, progress).precision
                    repositories.setdefault(precision, target)
        yield checkpoint, repositories


def copy_without_weights(source: Path, target: Path) -> Path:
    """Copies a model repository without the versions of the classifier, half-made ones included."""
    shutil.copytree(source, target, ignore=lambda folder, _: [MODEL_NAME] if Path(folder) == source else [])
    shutil.copytree(source / MODEL_NAME, target / MODEL_NAME, ignore=shutil.ignore_patterns("[0-9]*", ".[0-9]*"))
    return target


def model_file(repository: Path) -> Path:
    """The classifier's TorchScript."""
    return repository / MODEL_NAME / str(FIRST_VERSION) / MODEL_FILE


def configuration_path(repository: Path) -> Path:
    """What the embedded Triton reads on this machine."""
    return repository / MODEL_NAME / ("config.pbtxt" if cuda_device_count() else "configs/cpu.pbtxt")


def read_configuration(repository: Path) -> ModelConfig:
    """What the embedded Triton reads on this machine, parsed."""
    return text_format.Parse(configuration_path(repository).read_text(encoding="utf-8"), ModelConfig())


def saturating(repository: Path) -> int:
    """Callers for the batch that computes and for two that wait."""
    return 3 * int(read_configuration(repository).max_batch_size)


@contextlib.contextmanager
def serve(
    repository: Path,
    callers: int,
    *,
    generators: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Measure]:
    """A server on `repository` with callers in a closed loop, pixels over gRPC.

    A round has `images_per_second`; the mean `batch`, and a request's mean `queue_ms` and `compute_ms`; `busy`, the share
    of the time in which the backend computed, over 1 with several instances; and the server's `memory_mib`.

    Args:
        generators: client processes.
        environment: of the server, over this process's own.
    """
    with contextlib.ExitStack() as stack:
        with mock.patch.dict(os.environ, environment or {}):
            server = stack.enter_context(EmbeddedTriton(repository))
        labels = frozenset(read_labels(repository))
        processes = stack.enter_context(Generators(Load(server.grpc_url, labels), generators))
        yield lambda seconds: _round(server, processes, callers, seconds)


def _round(server: EmbeddedTriton, generators: Generators, callers: int, seconds: float) -> dict[str, float]:
    began: list[tuple[ModelCounters, float]] = []

    def begin() -> None:
        began.append((scrape(server.metrics_url).models[MODEL_NAME], time.monotonic()))

    samples = generators.closed_loop(callers, seconds, begin)
    before, since = began[0]
    counters, elapsed = scrape(server.metrics_url).models[MODEL_NAME].since(before), time.monotonic() - since
    if failures := [cause for sample in samples for cause in sample.failures]:
        raise ValueError(f"a request failed under load ({failures[0]}); see the server's log")
    return {
        "images_per_second": sum(answers_per_second(sample.answered_at) for sample in samples),
        "batch": counters.batch or 0.0,
        "queue_ms": counters.queue_ms or 0.0,
        "compute_ms": counters.compute_ms or 0.0,
        "busy": counters.busy(elapsed) or 0.0,
        "memory_mib": memory_mib(server.pid),
    }


def memory_mib(pid: int) -> float:
    """Proportional set size of a process and its descendants: a page that several share counts once."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total / 2**20
