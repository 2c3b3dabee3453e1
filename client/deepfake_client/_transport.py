"""The seam between the client and the network: implement it, or use `FakeTransport`, to test without a server."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ._messages import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery


@runtime_checkable
class Transport(Protocol):
    """Sends one request to one endpoint, once. Retries, deadlines over several attempts and verdicts lie above it.

    Every method raises only errors of this package, after at most `timeout` seconds, and may be called from several
    threads at once.
    """

    @property
    def endpoint(self) -> str:
        """URL of what is reached, as errors and logs show it."""
        ...

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        """Runs the model on the request's tensors."""
        ...

    def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        """Whether the server takes requests."""
        ...

    def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        """Whether the model is loaded."""
        ...

    def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        """Inputs, outputs and versions of the model."""
        ...

    def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        """Batch and queue limits of the model."""
        ...

    def close(self) -> None:
        """Gives the connections back; calls that are running fail."""
        ...


@runtime_checkable
class AsyncTransport(Protocol):
    """`Transport` for asyncio; used from one event loop."""

    @property
    def endpoint(self) -> str:
        """URL of what is reached, as errors and logs show it."""
        ...

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        """Runs the model on the request's tensors."""
        ...

    async def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        """Whether the server takes requests."""
        ...

    async def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        """Whether the model is loaded."""
        ...

    async def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        """Inputs, outputs and versions of the model."""
        ...

    async def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        """Batch and queue limits of the model."""
        ...

    async def close(self) -> None:
        """Gives the connections back; calls that are running fail."""
        ...
