"""What a measurement ran on, and what Triton counted."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
from deepfake_client import DeepfakeClient

MODEL, DECODER = "deepfake_vs_real", "image_decoder"

_TIMEOUT_SECONDS = 5.0
_LINE = re.compile(r"^(nv_\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_MODEL_LABEL = re.compile(r'(?:^|,)model="([^"]*)"')
#: In the order of the fields of ModelCounters.
_COUNTERS = (
    "nv_inference_request_success",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_infer_duration_us",
)


def cores() -> int:
    """Processors that a process here may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1


def command_line(module: str) -> str:
    """How this program was called, without the paths of this machine, which say nothing about the result."""
    paths = argparse.ArgumentParser(add_help=False)
    paths.add_argument("--output")
    paths.add_argument("--repository")
    return shlex.join(["python", "-m", module, *paths.parse_known_args()[1]])


def processor_name() -> str:
    """The processor's model name, where the system tells it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def weights(client: DeepfakeClient) -> str:
    provenance = client.provenance()
    if provenance is None:
        return "weights unknown"
    return f"{'stand-in weights' if provenance.stand_in else provenance.model_id}, {provenance.precision}"


def family(pid: int) -> list[psutil.Process]:
    """A process and its descendants, as far as they run."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


class ModelCounters(NamedTuple):
    """Counters of a model at one moment, or their growth over a load; summed over versions and instances."""

    requests: float = 0.0
    images: float = 0.0
    executions: float = 0.0
    queue_us: float = 0.0
    compute_us: float = 0.0

    def since(self, before: ModelCounters) -> ModelCounters:
        return ModelCounters(*(now - then for now, then in zip(self, before, strict=True)))

    @property
    def batch(self) -> float | None:
        return self.images / self.executions if self.executions else None

    @property
    def queue_ms(self) -> float | None:
        return self.queue_us / self.requests / 1000 if self.requests else None

    @property
    def compute_ms(self) -> float | None:
        """Mean time that a request spent in the model, which is that of the whole batch it was in."""
        return self.compute_us / self.requests / 1000 if self.requests else None

    def busy(self, seconds: float) -> float | None:
        """Share of `seconds` in which the model computed; over 1 with instances that compute at once."""
        return None if self.compute_ms is None else self.executions * self.compute_ms / 1000 / seconds


class Scrape(NamedTuple):
    models: Mapping[str, ModelCounters]
    pending: float
    """Requests waiting for the classifier or the decoder, as the autoscaler's fuse counts them."""
    gpu: float | None
    """Mean utilisation of the GPUs, 0 to 1; None when the server reports none."""


def scrape(url: str) -> Scrape:
    """Reads the endpoint.

    Raises:
        OSError: it does not answer, or is no Triton's; names the URL.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - checked by the command
            text = response.read().decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise OSError(f"{url}: {getattr(error, 'reason', error)}") from None
    found = _LINE.findall(text)
    if not found:
        raise OSError(f"{url}: no metrics of a Triton there")
    values: dict[tuple[str, str], float] = defaultdict(float)
    for name, labels, value in found:
        if model := _MODEL_LABEL.search(labels):
            values[name, model[1]] += float(value)
    gpus = [float(value) for name, _, value in found if name == "nv_gpu_utilization"]
    return Scrape(
        models={model: ModelCounters(*(values[name, model] for name in _COUNTERS)) for model in (MODEL, DECODER)},
        pending=sum(values["nv_inference_pending_request_count", model] for model in (MODEL, DECODER)),
        gpu=sum(gpus) / len(gpus) if gpus else None,
    )
