"""Adaptive batching, `max_batch_size=8`, one worker; its dispatcher learns how long to wait for more."""

from __future__ import annotations

import bentoml
from classifier import MAX_BATCH_SIZE, THREADS, Classifier
from PIL.Image import Image

# What is expected to take longer than this is refused; 32 callers of a CPU wait for several seconds.
_MAX_LATENCY_MS = 60_000


@bentoml.service(resources={"cpu": str(THREADS)}, workers=1, traffic={"timeout": 300})
class Service:
    """Takes a list of files, one from each request here; the dispatcher joins the lists of several."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=_MAX_LATENCY_MS)
    def classify(self, images: list[Image]) -> list[dict[str, float]]:
        return self._classifier.scores([self._classifier.pixels(image) for image in images])
