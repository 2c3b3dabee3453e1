"""gRPC for threads and for asyncio: one channel to one endpoint, shared by all calls.

A name that resolves to several addresses is balanced over. A channel that falls silent is replaced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2 as pb

from .._credentials import Headers, TLSConfig
from .._endpoint import Endpoint
from .._errors import ClientClosedError, DeadlineExceededError, DeepfakeError
from . import grpc_codec as codec
from .base import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery
from .grpc_channel import Connection, channel_credentials, connect
from .kept import Lease, LoopBound, Patience, Shared, cancelled_from_outside, silent


class GRPCTransport:
    """gRPC for threads."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None) -> None:
        self.endpoint = str(endpoint)
        credentials = channel_credentials(endpoint, tls)
        self._channels = Shared(lambda: connect(grpc, endpoint, credentials))
        self._patience = Patience()

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        message = codec.encode_infer(request)
        return codec.decode_infer(self._call("ModelInfer", message, request.headers, timeout))

    def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool(self._call("ServerReady", pb.ServerReadyRequest(), query.headers, timeout).ready)

    def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool(self._ask("ModelReady", pb.ModelReadyRequest, query, timeout).ready)

    def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata(self._ask("ModelMetadata", pb.ModelMetadataRequest, query, timeout))

    def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(self._ask("ModelConfig", pb.ModelConfigRequest, query, timeout))

    def close(self) -> None:
        for connection in self._channels.take():
            connection.channel.close()

    def _ask(self, method: str, kind: Callable[..., Any], query: ModelQuery, timeout: float) -> Any:
        return self._call(method, kind(name=query.model, version=query.version), query.headers, timeout)

    def _call(self, method: str, message: Any, headers: Headers, timeout: float) -> Any:
        lease, began = self._channels.enter(), time.monotonic()
        limit = self._patience.seconds(timeout) if lease.answered else timeout
        try:
            answer = getattr(lease.value.stub, method)(message, timeout=limit, metadata=headers)
            lease.answered = True
            self._patience.answered(time.monotonic() - began)
            return answer
        except (grpc.RpcError, ValueError) as error:
            # ValueError: the channel was closed
            raise _failure(error, self._channels, lease, silence=limit if limit < timeout else None) from None
        finally:
            if (unused := self._channels.leave(lease)) is not None:
                unused.channel.close()


class AsyncGRPCTransport:
    """gRPC for asyncio."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None) -> None:
        self.endpoint = str(endpoint)
        credentials = channel_credentials(endpoint, tls)
        self._channels = LoopBound(lambda: connect(grpc.aio, endpoint, credentials))
        self._patience = Patience()

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        message = codec.encode_infer(request)
        return codec.decode_infer(await self._call("ModelInfer", message, request.headers, timeout))

    async def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool((await self._call("ServerReady", pb.ServerReadyRequest(), query.headers, timeout)).ready)

    async def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool((await self._ask("ModelReady", pb.ModelReadyRequest, query, timeout)).ready)

    async def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata(await self._ask("ModelMetadata", pb.ModelMetadataRequest, query, timeout))

    async def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(await self._ask("ModelConfig", pb.ModelConfigRequest, query, timeout))

    async def close(self) -> None:
        for connection in self._channels.take():
            await connection.channel.close()

    async def _ask(self, method: str, kind: Callable[..., Any], query: ModelQuery, timeout: float) -> Any:
        return await self._call(method, kind(name=query.model, version=query.version), query.headers, timeout)

    async def _call(self, method: str, message: Any, headers: Headers, timeout: float) -> Any:
        lease, began = self._channels.enter(), time.monotonic()
        limit = self._patience.seconds(timeout) if lease.answered else timeout
        try:
            answer = await getattr(lease.value.stub, method)(message, timeout=limit, metadata=headers)
            lease.answered = True
            self._patience.answered(time.monotonic() - began)
            return answer
        except asyncio.CancelledError:
            # Closing a channel cancels its calls, which looks to the task as if it were cancelled itself.
            if self._channels.closed and not cancelled_from_outside():
                raise ClientClosedError("the client was closed") from None
            raise
        except (grpc.RpcError, grpc.aio.UsageError, ValueError) as error:
            raise _failure(error, self._channels, lease, silence=limit if limit < timeout else None) from None
        finally:
            if (unused := self._channels.leave(lease)) is not None:
                await unused.channel.close()


def _failure(
    error: Exception, channels: Shared[Connection], lease: Lease[Connection], silence: float | None
) -> DeepfakeError:
    """The error of ours; a kept channel that was silent for `silence` seconds, where those are not all, is replaced."""
    failure = codec.to_error(error, closed=channels.closed)
    if silence is None or not isinstance(failure, DeadlineExceededError):
        return failure
    channels.replace(lease)
    return silent(silence)
