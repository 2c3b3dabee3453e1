"""gRPC for threads and for asyncio: one channel to one endpoint, shared by all calls.

A name that resolves to several addresses is balanced over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2 as pb

from .._credentials import Headers, TLSConfig
from .._endpoint import Endpoint
from .._errors import ClientClosedError
from . import grpc_codec as codec
from .base import InferRequest, InferResponse, LoopBound, ModelConfig, ModelMetadata, ModelQuery
from .grpc_channel import channel_credentials, connect


class GRPCTransport:
    """gRPC for threads."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None) -> None:
        self.endpoint = str(endpoint)
        self._closed = False
        self._channel, self._stub = connect(grpc, endpoint, channel_credentials(endpoint, tls))

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        message = codec.encode_infer(request)
        return codec.decode_infer(self._call(self._stub.ModelInfer, message, request.headers, timeout))

    def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool(self._call(self._stub.ServerReady, pb.ServerReadyRequest(), query.headers, timeout).ready)

    def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool(self._ask(self._stub.ModelReady, pb.ModelReadyRequest, query, timeout).ready)

    def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata(self._ask(self._stub.ModelMetadata, pb.ModelMetadataRequest, query, timeout))

    def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(self._ask(self._stub.ModelConfig, pb.ModelConfigRequest, query, timeout))

    def close(self) -> None:
        self._closed = True
        self._channel.close()

    def _ask(self, method: Callable[..., Any], kind: Callable[..., Any], query: ModelQuery, timeout: float) -> Any:
        return self._call(method, kind(name=query.model, version=query.version), query.headers, timeout)

    def _call(self, method: Callable[..., Any], message: Any, headers: Headers, timeout: float) -> Any:
        try:
            return method(message, timeout=timeout, metadata=headers)
        except (grpc.RpcError, ValueError) as error:
            # ValueError: the channel was closed
            raise codec.to_error(error, closed=self._closed) from None


class AsyncGRPCTransport:
    """gRPC for asyncio."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None) -> None:
        self.endpoint = str(endpoint)
        credentials = channel_credentials(endpoint, tls)
        self._connection = LoopBound(lambda: connect(grpc.aio, endpoint, credentials))

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        message = codec.encode_infer(request)
        return codec.decode_infer(await self._call(self._stub.ModelInfer, message, request.headers, timeout))

    async def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool((await self._call(self._stub.ServerReady, pb.ServerReadyRequest(), query.headers, timeout)).ready)

    async def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        return bool((await self._ask(self._stub.ModelReady, pb.ModelReadyRequest, query, timeout)).ready)

    async def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        return codec.decode_metadata(await self._ask(self._stub.ModelMetadata, pb.ModelMetadataRequest, query, timeout))

    async def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        return codec.decode_config(await self._ask(self._stub.ModelConfig, pb.ModelConfigRequest, query, timeout))

    async def close(self) -> None:
        connection = self._connection.take()
        if connection is not None:
            await connection.channel.close()

    @property
    def _stub(self) -> Any:
        return self._connection.get().stub

    def _ask(
        self, method: Callable[..., Any], kind: Callable[..., Any], query: ModelQuery, timeout: float
    ) -> Awaitable[Any]:
        return self._call(method, kind(name=query.model, version=query.version), query.headers, timeout)

    async def _call(self, method: Callable[..., Awaitable[Any]], message: Any, headers: Headers, timeout: float) -> Any:
        try:
            return await method(message, timeout=timeout, metadata=headers)
        except asyncio.CancelledError:
            # Closing a channel cancels its calls, which looks to the task as if it were cancelled itself.
            if self._connection.closed:
                raise ClientClosedError("the client was closed") from None
            raise
        except (grpc.RpcError, grpc.aio.UsageError, ValueError) as error:
            raise codec.to_error(error, closed=self._connection.closed) from None
