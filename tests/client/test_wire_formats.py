"""What goes over the wire is what the KServe v2 protocol says, and nothing that comes back is taken on trust."""

from __future__ import annotations

import json
from typing import Any

import grpc
import numpy as np
import pytest
from deepfake_client import (
    AccessDeniedError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
    InferRequest,
    InferResponse,
    InternalServerError,
    NotReadyError,
    OverloadedError,
    ProtocolError,
    RequestedOutput,
    RequestRejectedError,
    Tensor,
    TLSError,
    UnknownModelError,
)
from deepfake_client._transports import grpc_codec, http_codec
from deepfake_client._verdict import probabilities_in
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

REQUEST = InferRequest(
    "model/ü",
    "3",
    "id",
    {"pixels": Tensor("UINT8", (1, 2), b"\1\2")},
    (RequestedOutput("probabilities"), RequestedOutput("top", 2)),
    1_500_000,
    (("authorization", "Bearer t"),),
)


def test_a_request_over_http_has_a_json_header_and_raw_tensors() -> None:
    path, headers, body = http_codec.encode_infer(REQUEST)
    length = int(headers["Inference-Header-Content-Length"])
    header = json.loads(body[:length])
    assert path == "/v2/models/model%2F%C3%BC/versions/3/infer"
    assert headers["authorization"] == "Bearer t"
    assert body[length:] == b"\1\2"
    assert header["id"] == "id"
    assert header["parameters"] == {"timeout": 1_500_000}
    assert header["inputs"] == [
        {"name": "pixels", "datatype": "UINT8", "shape": [1, 2], "parameters": {"binary_data_size": 2}}
    ]
    assert [output["parameters"] for output in header["outputs"]] == [
        {"binary_data": True},
        {"binary_data": True, "classification": 2},
    ]


def test_a_request_over_grpc_has_raw_contents() -> None:
    message = grpc_codec.encode_infer(REQUEST)
    assert (message.model_name, message.model_version, message.id) == ("model/ü", "3", "id")
    assert message.parameters["timeout"].int64_param == 1_500_000
    assert list(message.raw_input_contents) == [b"\1\2"]
    assert [output.parameters["classification"].int64_param for output in message.outputs] == [0, 2]


def test_an_answer_over_http_may_be_binary_or_json() -> None:
    header = {
        "model_name": "m",
        "model_version": "1",
        "id": "x",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.25]},
            {"name": "b", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}},
            {"name": "c", "datatype": "BYTES", "shape": [1, 1], "data": ["é"]},
        ],
    }
    head = json.dumps(header).encode()
    answer = http_codec.decode_infer({"Inference-Header-Content-Length": str(len(head))}, head + b"abcd")
    assert answer.outputs["a"].data == b"\0\0\0\x3f\0\0\x80\x3e"
    assert answer.outputs["b"].data == b"abcd"
    assert answer.outputs["c"].data == b"\2\0\0\0\xc3\xa9"
    assert (answer.model, answer.version, answer.request_id) == ("m", "1", "x")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b'{"outputs": [{}]}',
        b'{"model_name": "m", "model_version": 1, "outputs": [{"name": "a", "datatype": "FP32", "shape": [1], '
        b'"parameters": {"binary_data_size": 400}}]}',
        b'{"model_name": "m", "model_version": 1, "outputs": [{"name": "a", "datatype": "INT8", "shape": [1], '
        b'"data": [1]}]}',
    ],
)
def test_an_answer_that_is_none_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        http_codec.decode_infer({}, body)


@given(st.binary(max_size=300), st.integers(-5, 400))
def test_any_bytes_as_an_answer_are_a_protocol_error(body: bytes, length: int) -> None:
    with pytest.raises(ProtocolError):
        http_codec.decode_infer({"Inference-Header-Content-Length": str(length)}, body)


def test_an_answer_over_grpc_with_missing_contents_is_a_protocol_error() -> None:
    message = service_pb2.ModelInferResponse()
    message.outputs.add(name="a", datatype="FP32", shape=[1])
    with pytest.raises(ProtocolError):
        grpc_codec.decode_infer(message)


@pytest.mark.parametrize(
    "tensor",
    [
        None,
        Tensor("FP16", (1, 2), bytes(4)),
        Tensor("FP32", (2, 2), bytes(16)),
        Tensor("FP32", (2,), bytes(8)),
        Tensor("FP32", (1, 2), bytes(4)),
        Tensor("FP32", (1, 0), b""),
        Tensor("FP32", (1, 2), b"\0\0\xc0\x7f" * 2),  # NaN
        Tensor("FP32", (1, 2), b"\0\0\0\x40" + b"\0\0\x80\xbf"),  # 2 and -1
        Tensor("FP32", (1, 2), bytes(8)),
    ],
    ids=repr,
)
def test_scores_that_are_no_probabilities_are_a_protocol_error(tensor: Tensor | None) -> None:
    outputs = {} if tensor is None else {"probabilities": tensor}
    with pytest.raises(ProtocolError):
        probabilities_in(InferResponse("m", "1", "x", outputs), 1)


def test_scores_of_several_images_that_are_none_are_named() -> None:
    numbers = np.array([[0.5, 0.5], [0.25, 0.75], [np.nan, np.nan]], "<f4")
    outputs = {"probabilities": Tensor("FP32", (3, 2), numbers.tobytes())}
    with pytest.raises(ProtocolError, match=r"^probabilities of image 3 of 3 are not between 0 and 1"):
        probabilities_in(InferResponse("m", "1", "x", outputs), 3)


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, str], ...] = ()) -> None:
        self._answer: tuple[Any, ...] = (code, details, trailing)

    def code(self) -> grpc.StatusCode:
        return self._answer[0]

    def details(self) -> str:
        return self._answer[1]

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._answer[2]


S = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "kind", "retried"),
    [
        (S.UNAVAILABLE, "[request id: 7] Exceeds maximum queue size", OverloadedError, True),
        (S.UNAVAILABLE, "Request timeout expired", OverloadedError, True),
        (S.UNAVAILABLE, "This protocol is restricted, expecting header 'triton-grpc-protocol-k'", AccessDeniedError, 0),
        (S.UNAVAILABLE, "Server is stopping, scheduler for model has stopped accepting", NotReadyError, True),
        (S.NOT_FOUND, "Request for unknown model: 'm' has no available versions", NotReadyError, True),
        (S.UNAVAILABLE, "failed to connect to all addresses; last error: Connection refused", ConnectionFailedError, 1),
        (S.UNAVAILABLE, "connections to all backends failing; last error: Unwrap failed", ConnectionFailedError, True),
        (S.UNAVAILABLE, "Socket closed", ConnectionFailedError, True),
        (S.UNAVAILABLE, "GOAWAY received", ConnectionFailedError, True),
        (S.INTERNAL, "Received RST_STREAM with error code 2", ConnectionFailedError, True),
        (S.UNKNOWN, "Stream removed", ConnectionFailedError, True),
        (S.UNAVAILABLE, "SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: unable to get local issuer", TLSError, False),
        (S.UNAVAILABLE, "", NotReadyError, True),
        (S.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceededError, False),
        (S.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)", RequestRejectedError, False),
        (S.RESOURCE_EXHAUSTED, "rate limited", OverloadedError, True),
        (S.INVALID_ARGUMENT, "unexpected shape for input 'pixels'", RequestRejectedError, False),
        (S.NOT_FOUND, "Request for unknown model: 'm' is not found", UnknownModelError, False),
        (S.UNAUTHENTICATED, "who are you", AccessDeniedError, False),
        (S.PERMISSION_DENIED, "RBAC: access denied", AccessDeniedError, False),
        (S.UNIMPLEMENTED, "", ProtocolError, False),
        (S.INTERNAL, "Stub process is not healthy", InternalServerError, False),
    ],
)
def test_a_grpc_status_becomes_one_of_our_errors(
    code: grpc.StatusCode, details: str, kind: type[DeepfakeError], retried: bool
) -> None:
    error = grpc_codec.to_error(Failed(code, details), closed=False)
    assert type(error) is kind
    assert error.retryable is bool(retried)
    assert type(grpc_codec.to_error(Failed(code, details), closed=True)) is ClientClosedError


def test_a_servers_wish_when_to_return_is_read_from_trailers_and_headers() -> None:
    for trailer in (("retry-after", "3"), ("grpc-retry-pushback-ms", "3000")):
        error = grpc_codec.to_error(Failed(S.UNAVAILABLE, "Exceeds maximum queue size", (trailer,)), closed=False)
        assert isinstance(error, OverloadedError)
        assert error.retry_after_seconds == 3
    answer = http_codec.to_error(503, {"Retry-After": "4"}, b"")
    assert isinstance(answer, NotReadyError)
    assert answer.retry_after_seconds == 4


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error": "unexpected shape for input"}', RequestRejectedError),
        (400, b'{"error": "Request for unknown model: \'m\' is not found"}', UnknownModelError),
        (400, b'{"error": "Request for unknown model: \'m\' has no available versions"}', NotReadyError),
        (401, b"", AccessDeniedError),
        (403, b'{"error": "This API is restricted, expecting header \'k\'"}', AccessDeniedError),
        (404, b"", UnknownModelError),
        (413, b"too large", RequestRejectedError),
        (429, b"", OverloadedError),
        (500, b'{"error": "Stub process is not healthy"}', InternalServerError),
        (502, b"<html>bad gateway</html>", NotReadyError),
        (503, b'{"error": "Exceeds maximum queue size"}', OverloadedError),
        (503, b"no healthy upstream", NotReadyError),
        (504, b"", NotReadyError),
        (302, b"", ProtocolError),
        (200, b"", ProtocolError),
    ],
)
def test_an_http_status_becomes_one_of_our_errors(status: int, body: bytes, kind: type[DeepfakeError]) -> None:
    error = http_codec.to_error(status, {}, body)
    assert type(error) is kind
    assert len(str(error).splitlines()) == 1
