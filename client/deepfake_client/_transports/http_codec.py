"""KServe v2 over HTTP with its binary tensor extension: bodies in, bodies out, statuses to errors. No I/O, shared by
sync and async.

A body is a JSON header followed by the raw tensors; `Inference-Header-Content-Length` says where one ends and the
other begins.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import urllib3

from .._credentials import Headers
from .._errors import (
    AccessDeniedError,
    DeepfakeError,
    InternalServerError,
    OverloadedError,
    ProtocolError,
    RequestRejectedError,
    ServerError,
    UnknownModelError,
    one_line,
)
from .base import InferRequest, InferResponse, ModelConfig, ModelMetadata, ModelQuery, Tensor, TensorInfo
from .errors import from_message, not_ready, seconds_until

HEADER_LENGTH = "Inference-Header-Content-Length"
#: An answer is a few hundred bytes. More than this is not Triton, and is not read into memory.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
_MAX_PACKED_BYTES = 256 * 1024  # thousands of empty members take long to unpack
# What an answer raises that is no JSON, nested without end, with numbers beyond measure, or of another shape.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


def model_path(asked: InferRequest | ModelQuery, suffix: str = "") -> str:
    version = f"/versions/{quote(asked.version, safe='')}" if asked.version else ""
    return f"/v2/models/{quote(asked.model, safe='')}{version}{suffix}"


def encode_infer(request: InferRequest) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body for `request`."""
    parameters = {"timeout": request.queue_timeout_microseconds}
    if request.priority:
        parameters["priority"] = request.priority
    inputs = [
        {
            "name": name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
            "parameters": {"binary_data_size": len(tensor.data)},
        }
        for name, tensor in request.inputs.items()
    ]
    outputs = [
        {
            "name": output.name,
            "parameters": {"binary_data": True, **({"classification": output.classes} if output.classes else {})},
        }
        for output in request.outputs
    ]
    header = {"id": request.request_id, "parameters": parameters, "inputs": inputs, "outputs": outputs}
    head = json.dumps(header, separators=(",", ":")).encode()
    headers = {**dict(request.headers), "content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    body = b"".join([head, *(tensor.data for tensor in request.inputs.values())])
    return model_path(request, "/infer"), headers, body


def check_size(body: bytes | bytearray, limit: int = MAX_ANSWER_BYTES) -> None:
    if len(body) > limit:
        raise ProtocolError("the answer is too large to be one of Triton's")


def unpacked(headers: Mapping[str, str], body: bytes) -> bytes:
    """`body` without the compression of a gateway, MAX_ANSWER_BYTES at the most."""
    encoding = headers.get("content-encoding")
    if not encoding or not body:
        return body
    names = [name.strip().lower() for name in encoding.split(",")]
    coding = ", ".join(name for name in names if name not in ("", "identity"))
    if not coding:
        return body
    shown = one_line(coding, 80)
    if not set(coding.split(", ")) <= set(urllib3.HTTPResponse.CONTENT_DECODERS):
        raise ProtocolError(f"the answer is compressed as {shown!r}, which cannot be read: ask the gateway for gzip")
    check_size(body, _MAX_PACKED_BYTES)
    packed = urllib3.HTTPResponse(io.BytesIO(body), {"content-encoding": coding}, preload_content=False)
    try:
        content = packed.read(MAX_ANSWER_BYTES + 1, decode_content=True)
    except urllib3.exceptions.HTTPError:
        raise ProtocolError(f"the answer is said to be compressed as {shown!r}, but cannot be unpacked") from None
    check_size(content)
    return content


def decode_infer(headers: Mapping[str, str], body: bytes) -> InferResponse:
    """Reads the body of a 200 answer."""
    try:
        length = int(headers.get(HEADER_LENGTH) or len(body))
        header = json.loads(body[:length])
        outputs, position = {}, length
        for output in header["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                data = _from_json(output["datatype"], output["data"])
            else:
                data, position = body[position : position + size], position + size
            outputs[output["name"]] = Tensor(output["datatype"], tuple(output["shape"]), data)
        if position > len(body):
            raise ProtocolError("the answer is shorter than it says")
        return InferResponse(header["model_name"], str(header["model_version"]), header.get("id", ""), outputs)
    except _UNREADABLE:
        raise ProtocolError("the answer is not one of the KServe v2 protocol: is this Triton's HTTP port?") from None


def _from_json(datatype: str, data: list[Any]) -> bytes:
    """A tensor that a gateway has turned into JSON, as the bytes it would have had."""
    if datatype == "BYTES":
        encoded = [element.encode() for element in data]
        return b"".join(len(element).to_bytes(4, "little") + element for element in encoded)
    if datatype == "FP32":
        return np.asarray(data, dtype="<f4").tobytes()
    raise ProtocolError(f"the answer holds a tensor of type {datatype}, which was not asked for")


def decode_metadata(body: bytes) -> ModelMetadata:
    def infos(tensors: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(each["name"], each["datatype"], tuple(each["shape"])) for each in tensors)

    try:
        found = json.loads(body)
        return ModelMetadata(
            found["name"], tuple(found.get("versions", ())), infos(found["inputs"]), infos(found["outputs"])
        )
    except _UNREADABLE:
        raise ProtocolError("the answer is not a model's metadata") from None


def decode_config(body: bytes) -> ModelConfig:
    try:
        found = json.loads(body)
        queue = found.get("dynamic_batching", {}).get("default_queue_policy", {})
        return ModelConfig(
            backend=found.get("backend", ""),
            max_batch_size=int(found["max_batch_size"]),
            max_queue_size=int(queue.get("max_queue_size", 0)),
            default_queue_timeout_microseconds=int(queue.get("default_timeout_microseconds", 0)),
        )
    except _UNREADABLE:
        raise ProtocolError("the answer is not a model's configuration") from None


def query_headers(headers: Headers) -> dict[str, str]:
    return {**dict(headers), "accept": "application/json"}


def to_error(status: int, headers: Mapping[str, str], body: bytes) -> DeepfakeError:
    """The error of ours for an answer other than 200."""
    message = _message(body)
    result = _from_status(status, message)
    if isinstance(result, ServerError):
        result.retry_after_seconds = seconds_until(headers.get("Retry-After"))
    return result


def _from_status(status: int, message: str) -> DeepfakeError:
    shown = f"{message} (HTTP {status})" if message else f"HTTP {status}"
    if status in (401, 403, 407):
        return AccessDeniedError(f"the server refused the credentials, or the API is restricted: {shown}")
    if (named := from_message(message)) is not None:
        return named
    if status == 429:
        return OverloadedError(f"the server is overloaded: {shown}")
    if status in (502, 503, 504):
        return not_ready(shown)
    if status == 404:
        return UnknownModelError(f"the server does not have this model or path: {shown}")
    if status == 400 or status in (411, 413, 415, 422):
        return RequestRejectedError(f"refused by the server: {shown}")
    if status >= 500:
        return InternalServerError(f"the server failed: {shown}")
    # 3xx included: a redirect would carry the headers, and the credentials in them, to another host.
    return ProtocolError(f"an unexpected answer: {shown}")


def _message(body: bytes) -> str:
    """Triton's `{"error": "…"}`, or the head of whatever a proxy sent."""
    text = body[:4096].decode("utf-8", "replace")
    unreadable = sum(char == "\ufffd" or not (char.isprintable() or char.isspace()) for char in text)
    if unreadable * 10 > len(text):
        return "a body that is not text"  # maybe compressed by a gateway that does not say so
    try:
        found = json.loads(body) if len(body) <= 65_536 else None
        return str(found["error"]) if isinstance(found, dict) and "error" in found else text
    except _UNREADABLE:
        return text
