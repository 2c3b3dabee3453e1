"""KServe v2 over gRPC: messages in, messages out, status codes to errors. No I/O, shared by sync and async."""

from __future__ import annotations

import re
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from .._errors import (
    AccessDeniedError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
    InternalServerError,
    OverloadedError,
    ProtocolError,
    RequestRejectedError,
    ServerError,
    TLSError,
    UnknownModelError,
)
from .base import InferRequest, InferResponse, ModelConfig, ModelMetadata, Tensor, TensorInfo
from .errors import from_message, not_ready, seconds_until

# Of what gRPC and OpenSSL say, in lower case.
_CONNECTION = re.compile(
    "connection refused|connection reset|failed to connect|connections to all backends failing|socket closed|"
    "broken pipe|goaway|rst_stream|stream removed|transport closed|dns resolution failed|errors resolving|no route to host|"
    "network is unreachable|connection timed out|recvmsg|endpoint closing|handshak"
)
_TLS = re.compile("certificate_verify_failed|certificate verify failed|peer name|not verified|wrong_version_number")
_OTHER_PROTOCOL = re.compile(
    r"http1\.x server|missing content-type|unexpected content-type|received http2 header with status"
)


def encode_infer(request: InferRequest) -> Any:
    """The `ModelInferRequest` for `request`."""
    message = service_pb2.ModelInferRequest(
        model_name=request.model, model_version=request.version, id=request.request_id
    )
    message.parameters["timeout"].int64_param = request.queue_timeout_microseconds
    if request.priority:
        message.parameters["priority"].uint64_param = request.priority
    for name, tensor in request.inputs.items():
        message.inputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_input_contents.append(bytes(tensor.data))
    for output in request.outputs:
        requested = message.outputs.add(name=output.name)
        if output.classes:
            requested.parameters["classification"].int64_param = output.classes
    return message


def decode_infer(message: Any) -> InferResponse:
    """Reads a `ModelInferResponse`."""
    contents = message.raw_output_contents
    if len(contents) != len(message.outputs):
        raise ProtocolError("the answer announces other tensors than it holds")
    outputs = {
        output.name: Tensor(output.datatype, tuple(output.shape), data)
        for output, data in zip(message.outputs, contents, strict=True)
    }
    return InferResponse(message.model_name, message.model_version, message.id, outputs)


def decode_metadata(message: Any) -> ModelMetadata:
    def infos(tensors: Any) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(each.name, each.datatype, tuple(each.shape)) for each in tensors)

    return ModelMetadata(message.name, tuple(message.versions), infos(message.inputs), infos(message.outputs))


def decode_config(message: Any) -> ModelConfig:
    config = message.config
    queue = config.dynamic_batching.default_queue_policy
    return ModelConfig(
        backend=config.backend,
        max_batch_size=config.max_batch_size,
        max_queue_size=queue.max_queue_size,
        default_queue_timeout_microseconds=queue.default_timeout_microseconds,
    )


def to_error(error: Exception, *, closed: bool) -> DeepfakeError:
    """The error of ours for what a call of gRPC raised; `closed` when this side has closed the channel."""
    if closed:
        return ClientClosedError("the client was closed")
    if not isinstance(error, grpc.RpcError):
        return ProtocolError(f"the call could not be made: {error}")
    code, details = error.code(), error.details() or ""
    result = _from_status(code, details)
    if isinstance(result, ServerError):
        result.retry_after_seconds = _pushback_seconds(error)
    return result


def _from_status(code: Any, details: str) -> DeepfakeError:
    text = details.lower()
    status = grpc.StatusCode
    if code is status.DEADLINE_EXCEEDED:
        return DeadlineExceededError("no answer before the deadline")
    if _OTHER_PROTOCOL.search(text):
        return ProtocolError("this is not a gRPC endpoint: use Triton's gRPC port (8001), or an http:// url")
    if (named := from_message(details)) is not None:
        return named
    if _TLS.search(text):
        return TLSError(f"the TLS connection was refused: {_tls_reason(details)}")
    broken = code in (status.UNAVAILABLE, status.INTERNAL, status.UNKNOWN, status.CANCELLED)
    if broken and _CONNECTION.search(text):
        return ConnectionFailedError(_connection_reason(details))
    if code is status.UNAVAILABLE:
        return not_ready(details)
    if code is status.CANCELLED:
        return ConnectionFailedError(f"the call was cancelled on the way: {details}")
    if code is status.RESOURCE_EXHAUSTED:
        return OverloadedError(f"the server is overloaded: {details}")
    if code in (status.UNAUTHENTICATED, status.PERMISSION_DENIED):
        return AccessDeniedError(f"the server refused the credentials: {details}")
    if code in (status.INVALID_ARGUMENT, status.OUT_OF_RANGE, status.FAILED_PRECONDITION):
        return RequestRejectedError(f"refused by the server: {details}")
    if code is status.NOT_FOUND:
        return UnknownModelError(f"the server does not have this model: {details}")
    if code is status.UNIMPLEMENTED:
        return ProtocolError(f"this endpoint does not speak the KServe v2 protocol: {details}")
    return InternalServerError(f"the server failed: {details or code.name}")


def _connection_reason(details: str) -> str:
    text = details.lower()
    if "connection refused" in text:
        return "connection refused: is the server running, and is this its gRPC port?"
    if "dns resolution failed" in text or "errors resolving" in text:
        return "the host name does not resolve"
    return f"the connection failed: {details}"


def _tls_reason(details: str) -> str:
    if "wrong_version_number" in details.lower():
        return "the port does not speak TLS; use grpc:// for plain text"
    return "its certificate is not trusted or is for another name; pass tls=TLSConfig(ca_file=…) for a private CA"


def _pushback_seconds(error: Any) -> float | None:
    metadata = getattr(error, "trailing_metadata", lambda: None)() or ()
    for key, value in metadata:
        if key == "retry-after":
            return seconds_until(value)
        if key == "grpc-retry-pushback-ms" and value.isdigit():
            return int(value) / 1000
    return None
