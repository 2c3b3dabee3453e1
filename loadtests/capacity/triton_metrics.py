"""Triton's own counters, read before and after a step."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

MODEL, DECODER = "deepfake_vs_real", "image_decoder"

_TIMEOUT_SECONDS = 5.0
_LINE = re.compile(r"^(nv_\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_MODEL_LABEL = re.compile(r'(?:^|,)model="([^"]*)"')
_COUNTERS = {
    "requests": "nv_inference_request_success",
    "failures": "nv_inference_request_failure",
    "images": "nv_inference_count",
    "executions": "nv_inference_exec_count",
    "queue_us": "nv_inference_queue_duration_us",
    "compute_us": "nv_inference_compute_infer_duration_us",
    "cache_hits": "nv_cache_num_hits_per_model",
}
_PENDING = "nv_inference_pending_request_count"
_GPU = "nv_gpu_utilization"


@dataclass(frozen=True, slots=True)
class ModelCounters:
    """Counters of a model at one moment, or their growth over a step; summed over versions and instances."""

    requests: float = 0.0
    failures: float = 0.0
    images: float = 0.0
    executions: float = 0.0
    queue_us: float = 0.0
    compute_us: float = 0.0
    cache_hits: float = 0.0

    def since(self, before: ModelCounters) -> ModelCounters:
        return ModelCounters(*(getattr(self, name) - getattr(before, name) for name in _COUNTERS))

    @property
    def batch(self) -> float | None:
        """Mean images of an execution."""
        return self.images / self.executions if self.executions else None

    @property
    def queue_ms(self) -> float | None:
        """Mean wait of a request."""
        return self.queue_us / self.requests / 1000 if self.requests else None

    @property
    def compute_ms(self) -> float | None:
        """Mean time that a request spent in the model, which is that of the whole batch it was in."""
        return self.compute_us / self.requests / 1000 if self.requests else None

    @property
    def queue_to_compute(self) -> float | None:
        """What the autoscaler's second trigger looks at."""
        return self.queue_us / self.compute_us if self.compute_us else None


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the metrics endpoint said at one moment."""

    models: Mapping[str, ModelCounters]
    pending: float
    """Requests waiting for the classifier or the decoder, as the autoscaler's first trigger counts them."""
    gpu: float | None
    """Mean utilisation of the GPUs, 0 to 1; None when the server reports none."""


def scrape(url: str) -> Scrape:
    """Reads the endpoint.

    Raises:
        OSError: it does not answer, or is not Triton's; the message says which.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - http, checked by the command
            text = response.read().decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise OSError(f"{url}: {getattr(error, 'reason', error)}") from None
    found = _LINE.findall(text)
    if not found:
        raise OSError(f"{url}: no metrics of a Triton there")
    values: dict[tuple[str, str], float] = {}
    gpus = []
    for name, labels, value in found:
        if name == _GPU:
            gpus.append(float(value))
        elif model := _MODEL_LABEL.search(labels):
            key = name, model[1]
            values[key] = values.get(key, 0.0) + float(value)
    models = {
        model: ModelCounters(**{key: values.get((name, model), 0.0) for key, name in _COUNTERS.items()})
        for model in (MODEL, DECODER)
    }
    pending = values.get((_PENDING, MODEL), 0.0) + values.get((_PENDING, DECODER), 0.0)
    return Scrape(models, pending, sum(gpus) / len(gpus) if gpus else None)
