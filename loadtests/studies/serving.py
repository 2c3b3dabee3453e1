"""What is measured: model repositories, a Triton under load, the bare TorchScript model, and the model card's code."""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from unittest import mock

import psutil
import torch
from deepfake_cli.console import StepProgress
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.command import TORCH_ENVIRONMENT
from deepfake_deploy.embedded.installation import cuda_device_count
from deepfake_deploy.export import FIRST_VERSION, MODEL_FILE, MODEL_NAME, Precision, export_model, int8_refusal
from deepfake_deploy.export.checkpoint import open_checkpoint
from deepfake_deploy.export.contract import read_labels
from deepfake_deploy.export.reporting import silent_transformers
from deepfake_deploy.export.torchscript import best_precision
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtests.capacity.resources import family, scrape
from loadtests.traffic.loops import Generators, Load, answers_per_second

_QUEUED_ON_A_GPU = 8  # before it is waited for, so that it never waits for Python

#: Of a batch size and seconds, `images_per_second`.
BareModel = Callable[[int, float], dict[str, float]]


def precisions() -> list[Precision]:
    """What is measured on this machine: fp32, what `--precision auto` takes, and int8 if it is a CPU that has it."""
    int8 = [] if torch.cuda.is_available() or int8_refusal() else [Precision.INT8]
    return list(dict.fromkeys([Precision.FP32, best_precision(), *int8]))


@contextlib.contextmanager
def exported(
    options: argparse.Namespace, precisions: Sequence[Precision], folder: Path
) -> Iterator[tuple[Path, dict[Precision, Path]]]:
    """The folder of the checkpoint `--model`, and for each precision a copy of `--repository` that has it exported."""
    with contextlib.ExitStack() as stack:
        repositories: dict[Precision, Path] = {}
        with StepProgress() as progress:
            opening = open_checkpoint(options.model, None, read_labels(options.repository), progress)
            checkpoint = stack.enter_context(opening).folder
            for precision in precisions:
                target = copy_without_weights(options.repository, folder / f"exported-{precision.value}")
                export_model(str(checkpoint), None, precision, target, progress)
                repositories[precision] = target
        yield checkpoint, repositories


def copy_without_weights(source: Path, target: Path) -> Path:
    """Copies a model repository without the versions of the classifier, half-made ones included."""
    shutil.copytree(source, target, ignore=lambda folder, _: [MODEL_NAME] if Path(folder) == source else [])
    shutil.copytree(source / MODEL_NAME, target / MODEL_NAME, ignore=shutil.ignore_patterns("[0-9]*", ".[0-9]*"))
    return target


def model_file(repository: Path) -> Path:
    return repository / MODEL_NAME / str(FIRST_VERSION) / MODEL_FILE


def configuration_path(repository: Path) -> Path:
    """What the embedded Triton reads on this machine."""
    return repository / MODEL_NAME / ("config.pbtxt" if cuda_device_count() else "configs/cpu.pbtxt")


def read_configuration(repository: Path) -> ModelConfig:
    return text_format.Parse(configuration_path(repository).read_text(encoding="utf-8"), ModelConfig())


def saturating(repository: Path) -> int:
    """Callers for the batch that computes and for two that wait."""
    return 3 * int(read_configuration(repository).max_batch_size)


@contextlib.contextmanager
def serve(repository: Path, callers: int, generators: int = 1) -> Iterator[Callable[[float], dict[str, float]]]:
    """A server on `repository` with callers, from so many processes, in a closed loop of pixels over gRPC.

    A round of some seconds has `images_per_second`; the mean `batch`, and a request's mean `queue_ms` and `compute_ms`;
    `busy`, the share of the time in which the backend computed; and the server's `memory_mib`.
    """
    labels = frozenset(read_labels(repository))
    with EmbeddedTriton(repository) as server, Generators(Load(server.grpc_url, labels), generators) as processes:
        yield lambda seconds: _round(server, processes, callers, seconds)


def _round(server: EmbeddedTriton, generators: Generators, callers: int, seconds: float) -> dict[str, float]:
    before, began = scrape(server.metrics_url).models[MODEL_NAME], time.monotonic()
    samples = generators.closed_loop(callers, seconds)
    counters, elapsed = scrape(server.metrics_url).models[MODEL_NAME].since(before), time.monotonic() - began
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


@contextlib.contextmanager
def bare_model(model: Path, device: str = "cpu") -> Iterator[BareModel]:
    """A process that has loaded a model.pt with the settings that the embedded Triton gives its backend.

    The allocator and OpenMP read them when they start. A measurement is at least two forward passes, after two that do
    not count.

    Raises:
        ChildProcessError: it failed, or ended.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as process:

        def ask(batch: int, seconds: float) -> dict[str, float]:
            try:
                return {"images_per_second": process.submit(_measure, str(model), device, batch, seconds).result()}
            except Exception as error:  # whatever torch raises
                raise ChildProcessError(f"the bare model failed: {type(error).__name__}: {error}") from None

        with mock.patch.dict(os.environ, TORCH_ENVIRONMENT):
            ask(1, 0.0)
        yield ask


@cache
def _loaded(model: str, device: str) -> Callable[[torch.Tensor], object]:
    module: Callable[[torch.Tensor], object] = torch.jit.load(model, map_location=device)
    return module


def _measure(model: str, device: str, batch: int, seconds: float) -> float:
    pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8, device=device)
    forward = partial(_loaded(model, device), pixels)
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        repeated(forward, 0.0, device)
        times, elapsed = repeated(forward, seconds, device)
    return times * batch / elapsed


def best_batch(bare: BareModel, batches: Sequence[int], seconds: float) -> int:
    """The batch size with the most images per second, by the better of two short rounds each, in turns."""
    return max((bare(batch, seconds)["images_per_second"], batch) for batch in (*batches, *batches))[1]


def card_code(checkpoint: Path, device: str = "cpu") -> Callable[[bytes], list[float]]:
    """The card's code, in fp32: the probabilities of one image file."""
    from transformers import AutoImageProcessor, SiglipForImageClassification

    with silent_transformers():
        processor = AutoImageProcessor.from_pretrained(checkpoint)
        model = SiglipForImageClassification.from_pretrained(checkpoint).to(device)

    def probabilities(file: bytes) -> list[float]:
        inputs = processor(images=Image.open(io.BytesIO(file)).convert("RGB"), return_tensors="pt").to(device)
        with torch.no_grad():
            scores: list[float] = torch.softmax(model(**inputs).logits, dim=1)[0].tolist()
        return scores

    return probabilities


def repeated(run: Callable[[], object], seconds: float, device: str = "cpu") -> tuple[int, float]:
    """How often it ran, twice at least, and in what time."""
    at_once = _QUEUED_ON_A_GPU if device == "cuda" else 1
    began, times = time.perf_counter(), 0
    while times < 2 or time.perf_counter() - began < seconds:
        for _ in range(at_once):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
        times += at_once
    return times, time.perf_counter() - began
