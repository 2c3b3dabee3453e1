"""A server that is not there, for the tests of code that uses the client."""

# ruff: noqa: ARG002 - the arguments are those of the protocols, and a fake has no use for some

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from .._errors import DeepfakeError, InvalidArgumentError, RequestRejectedError, UnknownModelError
from .._tensors import ENCODED_INPUT, PIXELS, PROBABILITIES, PROVENANCE, string_tensor
from ..preprocessing import IMAGE_SIZE, Pixels, load_image, to_pixels
from .base import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery, Tensor, TensorInfo

Answer: TypeAlias = Sequence[float] | Callable[[Pixels], Sequence[float]]


class _FakeServer:
    """Answers as Triton would, from a table or a function in place of a model."""

    def __init__(
        self,
        probabilities: Answer = (0.9, 0.1),
        *,
        labels: Sequence[str] = ("Deepfake", "Real one"),
        errors: Iterable[DeepfakeError | None] = (),
        version: str = "1",
        max_batch_size: int = 32,
        ready: bool = True,
        endpoint: str = "fake://server",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """A server that answers every request at once.

        Args:
            probabilities: the answer to every image, one number for each label; or a function from the image's pixels,
                uint8 of shape (224, 224, 3), to it.
            labels: class names, as the server's `labels.txt` has them.
            errors: what the first requests meet, one after the other: an error of this package to raise, or None for
                an answer. After the last, all are answered. The question for the labels is not counted.
            version: model version that answers.
            max_batch_size: larger requests are refused.
            ready: what `ready()` says.
            endpoint: how errors and logs call it.
            provenance: what `provenance()` finds, as in the export's `provenance.json`; None for a server without it.
        """
        self.probabilities = probabilities
        self.labels = tuple(labels)
        self.version = version
        self.max_batch_size = max_batch_size
        self.ready = ready
        self.provenance = provenance
        self.closed = False
        #: every inference asked for, in order, the questions for the labels left out
        self.requests: list[InferRequest] = []
        #: how often the labels were asked for
        self.label_requests = 0
        self.endpoint = endpoint
        self._errors = iter(errors)
        self._lock = threading.Lock()

    def _infer(self, request: InferRequest) -> InferResponse:
        if request.model == PROVENANCE:
            return self._tell_provenance(request)
        rows = _rows_of(request)
        if len(rows) > self.max_batch_size:
            raise RequestRejectedError(f"the batch of {len(rows)} is over the model's {self.max_batch_size}")
        if classes := request.outputs[0].classes:
            with self._lock:
                self.label_requests += 1
            output = self._names(classes)
        else:
            with self._lock:
                self.requests.append(request)
                error = next(self._errors, None)
            if error is not None:
                raise error
            output = self._scores(rows)
        version = request.version or self.version
        return InferResponse(request.model, version, request.request_id, {PROBABILITIES: output})

    def _tell_provenance(self, request: InferRequest) -> InferResponse:
        if self.provenance is None:
            raise UnknownModelError(f"the server does not have this model: {PROVENANCE}")
        document = string_tensor([json.dumps(dict(self.provenance)).encode()], (1, 1))
        return InferResponse(request.model, "1", request.request_id, {PROVENANCE: document})

    def _scores(self, rows: Pixels) -> Tensor:
        answer = self.probabilities
        found = np.array([answer(row) if callable(answer) else answer for row in rows], "<f4")
        if found.shape != (len(rows), len(self.labels)):
            raise InvalidArgumentError("FakeTransport needs one probability for each label")
        return Tensor("FP32", found.shape, found.tobytes())

    def _names(self, classes: int) -> Tensor:
        names = [f"{0:.6f}:{index}:{label}".encode() for index, label in enumerate(self.labels)][:classes]
        return string_tensor(names, (1, len(names)))

    def _metadata(self, query: ModelQuery) -> ModelMetadata:
        takes = TensorInfo(PIXELS, "UINT8", (-1, IMAGE_SIZE, IMAGE_SIZE, 3))
        if query.model == ENCODED_INPUT.model:
            takes = TensorInfo(ENCODED_INPUT.name, "BYTES", (-1, 1))
        probabilities = TensorInfo(PROBABILITIES, "FP32", (-1, len(self.labels)))
        return ModelMetadata(query.model, (self.version,), (takes,), (probabilities,))


def _rows_of(request: InferRequest) -> Pixels:
    """The pixels in a request, or those of the encoded image in it, (N, 224, 224, 3)."""
    encoded = request.inputs.get(ENCODED_INPUT.name)
    if encoded is not None:
        return to_pixels(load_image(bytes(encoded.data[4:])))[np.newaxis]  # after its length in 4 bytes
    tensor = request.inputs[PIXELS]
    return np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)


class FakeTransport(_FakeServer):
    """A `Transport` without a network.

    Example:
        >>> from deepfake_client import DeepfakeClient, FakeTransport
        >>> import numpy as np
        >>> client = DeepfakeClient(transport=FakeTransport(probabilities=[0.2, 0.8]))
        >>> client.classify(np.zeros((10, 10, 3), np.uint8)).label
        'Real one'
    """

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        return self._infer(request)

    def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return self.ready

    def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return self.ready

    def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return self._metadata(query)

    def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return ModelConfig("fake", self.max_batch_size, 0, 0)

    def close(self) -> None:
        self.closed = True


class AsyncFakeTransport(_FakeServer):
    """`FakeTransport` for `AsyncDeepfakeClient`."""

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        return self._infer(request)

    async def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return self.ready

    async def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return self.ready

    async def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return self._metadata(query)

    async def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return ModelConfig("fake", self.max_batch_size, 0, 0)

    async def close(self) -> None:
        self.closed = True
