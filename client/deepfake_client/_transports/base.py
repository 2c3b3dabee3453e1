"""The seam between the client and the network: what travels over it, free of any protocol, and who carries it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from .._credentials import Headers
from .._errors import ConnectionFailedError


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the KServe v2 protocol carries it.

    Attributes:
        datatype: "UINT8", "FP32", "BYTES", …
        shape: with the batch dimension.
        data: the elements as bytes, row-major, little-endian; for BYTES each is preceded by its length in 4 bytes. In
            a request it may be a view of the caller's array.
    """

    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output to be sent back; with `classes` > 0 as that many "value:index:label" strings (BYTES), else raw."""

    name: str
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference.

    Attributes:
        version: "" for the version that the server chooses.
        queue_timeout_microseconds: how long the server may let the request wait, below the client's own deadline.
        headers: sent as HTTP headers or gRPC metadata; may hold credentials, hence not in the repr.
        priority: level in the server's queue, 1 before 2; 0 leaves it to the server.
    """

    model: str
    version: str
    request_id: str
    inputs: Mapping[str, Tensor] = field(hash=False, repr=False)
    outputs: tuple[RequestedOutput, ...]
    queue_timeout_microseconds: int
    headers: Headers = field(default=(), repr=False)
    priority: int = 0


@dataclass(frozen=True, slots=True)
class InferResponse:
    """What a model answered; `outputs` has those that were requested, by name."""

    model: str
    version: str
    request_id: str
    outputs: Mapping[str, Tensor] = field(hash=False)


@dataclass(frozen=True, slots=True)
class ModelQuery:
    """A question about a model (or, with model "", about the server)."""

    model: str = ""
    version: str = ""
    headers: Headers = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, type and shape of an input or output; -1 stands for a dimension that varies (the batch)."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What the server says a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The part of a model's configuration that a caller can make use of.

    Attributes:
        backend: "pytorch", "python", …; "" for an ensemble.
        max_batch_size: most images in one request; 0 when the model takes no batches.
        max_queue_size: requests that may wait before others are refused; 0 for no bound.
        default_queue_timeout_microseconds: how long a request waits that says nothing itself; 0 for no bound.
    """

    backend: str
    max_batch_size: int
    max_queue_size: int
    default_queue_timeout_microseconds: int


class StaleConnectionError(ConnectionFailedError):
    """A connection kept from earlier calls was dead; the same endpoint's next call goes over a fresh one."""


@runtime_checkable
class Transport(Protocol):
    """Sends one request to one endpoint, once. Retries, deadlines over several attempts and verdicts lie above it.

    Every method raises only errors of this package, after at most `timeout` seconds. Several threads may call at once.
    """

    @property
    def endpoint(self) -> str:
        """URL of what is reached, as errors and logs show it."""

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        """Runs the model on the request's tensors."""

    def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        """Whether the server takes requests."""

    def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        """Whether the model is loaded."""

    def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        """Inputs, outputs and versions of the model."""

    def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        """Batch and queue limits of the model."""

    def close(self) -> None:
        """Gives the connections back; calls that are running fail."""


@runtime_checkable
class AsyncTransport(Protocol):
    """`Transport` for asyncio; used from one event loop."""

    @property
    def endpoint(self) -> str: ...

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse: ...

    async def server_ready(self, query: ModelQuery, timeout: float) -> bool: ...

    async def model_ready(self, query: ModelQuery, timeout: float) -> bool: ...

    async def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata: ...

    async def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig: ...

    async def close(self) -> None: ...


AnyTransport: TypeAlias = Transport | AsyncTransport
