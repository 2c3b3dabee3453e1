"""gRPC for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2_grpc

from . import _grpc_codec as codec
from ._credentials import Headers, TLSConfig
from ._endpoint import Endpoint
from ._errors import ClientClosedError
from ._event_loop import LoopBound
from ._grpc_channel import CHANNEL_OPTIONS, channel_credentials, target_of
from ._messages import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery


class AsyncGRPCTransport:
    """One channel to one endpoint, shared by all tasks. A name that resolves to several addresses is balanced over."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None) -> None:
        self._endpoint = str(endpoint)
        self._target = target_of(endpoint)
        self._credentials = channel_credentials(endpoint, tls)
        self._connection = LoopBound(self._connect)

    @property
    def endpoint(self) -> str:
        return self._endpoint

    async def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        message = codec.encode_infer(request)
        return codec.decode_infer(await self._call("ModelInfer", message, request.headers, timeout))

    async def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        message = codec.encode_server_ready_query()
        return bool((await self._call("ServerReady", message, query.headers, timeout)).ready)

    async def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        message = codec.encode_model_ready_query(query)
        return bool((await self._call("ModelReady", message, query.headers, timeout)).ready)

    async def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        message = codec.encode_metadata_query(query)
        return codec.decode_metadata(await self._call("ModelMetadata", message, query.headers, timeout))

    async def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        message = codec.encode_config_query(query)
        return codec.decode_config(await self._call("ModelConfig", message, query.headers, timeout))

    async def close(self) -> None:
        connection = self._connection.take()
        if connection is not None:
            await connection[0].close()

    def _connect(self) -> tuple[Any, Any]:
        channel = (
            grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS)
            if self._credentials is None
            else grpc.aio.secure_channel(self._target, self._credentials, options=CHANNEL_OPTIONS)
        )
        return channel, service_pb2_grpc.GRPCInferenceServiceStub(channel)

    async def _call(self, name: str, message: Any, headers: Headers, timeout: float) -> Any:
        method: Callable[..., Any] = getattr(self._connection.get()[1], name)
        try:
            return await method(message, timeout=timeout, metadata=headers)
        except asyncio.CancelledError:
            # Closing a channel cancels its calls, which looks to the task as if it were cancelled itself.
            if self._connection.closed:
                raise ClientClosedError("the client was closed") from None
            raise
        except (grpc.RpcError, grpc.aio.UsageError, ValueError) as error:
            raise codec.to_error(error, closed=self._connection.closed) from None
