"""Two thousand requests that make no sense: each gets an error, and the server stays ready and right."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from deepfake_deploy.embedded import EmbeddedTriton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.calls import BareClient

HEADER_LENGTH = "Inference-Header-Content-Length"
PIXELS = {"name": "pixels", "datatype": "UINT8", "shape": [1, 224, 224, 3]}
SEEDS = 125  # of each of the sixteen kinds below


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/")[0])


def http(port: int, path: str, body: bytes, headers: dict[str, str] | None = None) -> int | None:
    """Status of a request written by hand; None when the server closes without one."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return raw(port, ("\r\n".join(lines) + "\r\n\r\n").encode() + body)


def raw(port: int, content: bytes, *, end: bool = False) -> int | None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(content)
            if end:
                connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(64)
        except (ConnectionError, TimeoutError):
            return None
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.") else None


def infer(port: int, header: object, tail: bytes, length: int | None = None) -> int | None:
    text = json.dumps(header).encode()
    return http(
        port,
        "/v2/models/deepfake_vs_real/infer",
        text + tail,
        {HEADER_LENGTH: str(len(text) if length is None else length)},
    )


def binary(size: int, **changes: object) -> dict[str, object]:
    return {"inputs": [{**PIXELS, **changes, "parameters": {"binary_data_size": size}}]}


HTTP_KINDS: dict[str, Callable[[int, random.Random], int | None]] = {
    "another model": lambda port, dice: http(port, f"/v2/models/{dice.randrange(10**6)}/infer", b"{}"),
    "another path": lambda port, dice: http(port, f"/{dice.randbytes(6).hex()}", b""),
    "another input": lambda port, dice: infer(port, binary(150528, name=dice.randbytes(4).hex()), bytes(150528)),
    "another type": lambda port, dice: infer(
        port, binary(150528, datatype=dice.choice(["FP32", "INT8", "BYTES", "UINT16", "none", ""])), bytes(150528)
    ),
    "another shape": lambda port, dice: infer(
        port,
        binary(150528, shape=dice.choice([[], [1], [0, 224, 224, 3], [-1, 224, 224, 3], [1, 3, 224, 224], [2**40, 1]])),
        bytes(150528),
    ),
    "too few bytes": lambda port, dice: infer(port, binary(150528), bytes(dice.randrange(150528))),
    "another size": lambda port, dice: infer(port, binary(dice.randrange(150528)), bytes(150528)),
    "too large a batch": lambda port, _: infer(port, binary(9 * 150528, shape=[9, 224, 224, 3]), bytes(9 * 150528)),
    "cut JSON": lambda port, dice: http(
        port,
        "/v2/models/deepfake_vs_real/infer",
        json.dumps({"inputs": [{**PIXELS, "data": [0] * 40}]}).encode()[: dice.randrange(1, 150)],
    ),
    "a wrong header length": lambda port, dice: infer(
        port, binary(150528), bytes(150528), dice.choice([-1, 0, 3, 10**6, 2**63])
    ),
    "random bytes as JSON": lambda port, dice: http(
        port, "/v2/models/deepfake_vs_real/infer", dice.randbytes(dice.randrange(1, 2000))
    ),
    "an image that is none": lambda port, dice: http(
        port,
        "/v2/models/deepfake_vs_real_image/infer",
        *_image_request(dice.randbytes(dice.randrange(3000))),
    ),
    "a string that lies about its length": lambda port, dice: http(
        port,
        "/v2/models/deepfake_vs_real_image/infer",
        *_image_request(dice.randbytes(100), announced=dice.choice([2**31, 99, 0, 2**32 - 1])),
    ),
}


def _image_request(image: bytes, announced: int | None = None) -> tuple[bytes, dict[str, str]]:
    tensor = struct.pack("<I", len(image) if announced is None else announced) + image
    parameters = {"binary_data_size": len(tensor)}
    header = json.dumps(
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": parameters}]}
    ).encode()
    return header + tensor, {HEADER_LENGTH: str(len(header))}


@pytest.mark.parametrize("kind", HTTP_KINDS)
def test_malformed_http_requests_get_errors(triton: EmbeddedTriton, kind: str) -> None:
    port = port_of(triton.http_url)
    statuses = {HTTP_KINDS[kind](port, random.Random(seed)) for seed in range(SEEDS)}
    # Triton 2.51 answers JSON that it cannot read with 500, although the fault is the caller's.
    assert statuses <= {400, 404, 405, 500, None}, statuses
    assert statuses != {None}
    require_right_answers(triton)


def test_malformed_grpc_requests_get_errors(triton: EmbeddedTriton) -> None:
    codes = set()
    with grpc.insecure_channel(triton.grpc_url.removeprefix("grpc://")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for seed in range(2 * SEEDS):
            dice = random.Random(seed)
            tensor = service_pb2.ModelInferRequest.InferInputTensor(
                name=dice.choice(["pixels", "pixel", ""]),
                datatype=dice.choice(["UINT8", "FP32", "BYTES", ""]),
                shape=dice.choice([[1, 224, 224, 3], [1, 1], [], [-1, 224, 224, 3], [2**62, 2]]),
            )
            content = [dice.randbytes(dice.choice([0, 7, 150527]))] * dice.randrange(3)
            request = service_pb2.ModelInferRequest(
                model_name=dice.choice(["deepfake_vs_real", "deepfake_vs_real", "image_decoder", "nothing"]),
                inputs=[tensor] * dice.randrange(3),
                raw_input_contents=content,
            )
            with pytest.raises(grpc.RpcError) as refused:
                stub.ModelInfer(request, timeout=30)
            codes.add(refused.value.code())
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE}, codes
    require_right_answers(triton)


def test_random_bytes_on_each_port_are_survived(triton: EmbeddedTriton) -> None:
    for seed in range(SEEDS):
        dice = random.Random(seed)
        for url in (triton.http_url, triton.grpc_url, triton.metrics_url):
            raw(port_of(url), dice.randbytes(dice.randrange(1, 4000)), end=True)
    require_right_answers(triton)


def test_slow_senders_do_not_keep_others_waiting(triton: EmbeddedTriton) -> None:
    port = port_of(triton.http_url)
    beginning = b"POST /v2/models/deepfake_vs_real/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 150900\r\n\r\n{"
    slow = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(beginning)
        for _ in range(5):
            for connection in slow:
                connection.sendall(b" ")
            require_right_answers(triton)
            time.sleep(0.1)
    finally:
        for connection in slow:
            connection.close()
    require_right_answers(triton)


def test_an_oversized_body_is_refused(triton: EmbeddedTriton) -> None:
    size = 128 * 224 * 224 * 3
    assert infer(port_of(triton.http_url), binary(size, shape=[128, 224, 224, 3]), bytes(size)) in (400, 413)
    require_right_answers(triton)


def require_right_answers(server: EmbeddedTriton) -> None:
    """The server is ready, and says over both protocols what it always says."""
    pixels = np.full((1, 224, 224, 3), 99, np.uint8)
    answers = []
    for url in (server.grpc_url, server.http_url):
        with BareClient(url) as client:
            assert client.connection.is_server_ready()
            answers.append(client.classify_pixels(pixels))
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6, rtol=0)
    np.testing.assert_allclose(answers[0].sum(), 1, atol=1e-6)
    assert not server.lost_workers()
