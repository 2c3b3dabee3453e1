"""gRPC for threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2_grpc

from . import _grpc_codec as codec
from ._credentials import Headers, TLSConfig
from ._endpoint import Endpoint
from ._grpc_channel import CHANNEL_OPTIONS, channel_credentials, target_of
from ._messages import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery


class GRPCTransport:
    """One channel to one endpoint, shared by all threads. A name that resolves to several addresses is balanced over."""

    def __init__(self, endpoint: Endpoint, tls: TLSConfig | None) -> None:
        self._endpoint = str(endpoint)
        self._closed = False
        credentials = channel_credentials(endpoint, tls)
        target = target_of(endpoint)
        self._channel = (
            grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=CHANNEL_OPTIONS)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    @property
    def endpoint(self) -> str:
        return self._endpoint

    def infer(self, request: InferRequest, timeout: float) -> InferResponse:
        message = codec.encode_infer(request)
        return codec.decode_infer(self._call(self._stub.ModelInfer, message, request.headers, timeout))

    def server_ready(self, query: ModelQuery, timeout: float) -> bool:
        message = codec.encode_server_ready_query()
        return bool(self._call(self._stub.ServerReady, message, query.headers, timeout).ready)

    def model_ready(self, query: ModelQuery, timeout: float) -> bool:
        message = codec.encode_model_ready_query(query)
        return bool(self._call(self._stub.ModelReady, message, query.headers, timeout).ready)

    def model_metadata(self, query: ModelQuery, timeout: float) -> ModelMetadata:
        message = codec.encode_metadata_query(query)
        return codec.decode_metadata(self._call(self._stub.ModelMetadata, message, query.headers, timeout))

    def model_config(self, query: ModelQuery, timeout: float) -> ModelConfig:
        message = codec.encode_config_query(query)
        return codec.decode_config(self._call(self._stub.ModelConfig, message, query.headers, timeout))

    def close(self) -> None:
        self._closed = True
        self._channel.close()

    def _call(self, method: Callable[..., Any], message: Any, headers: Headers, timeout: float) -> Any:
        try:
            return method(message, timeout=timeout, metadata=headers)
        except (grpc.RpcError, ValueError) as error:
            # ValueError: the channel was closed
            raise codec.to_error(error, closed=self._closed) from None
