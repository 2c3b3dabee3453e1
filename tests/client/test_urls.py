"""URLs: four schemes, sensible ports, and a clear refusal of everything else."""

from __future__ import annotations

import pytest
from deepfake_client import DeepfakeClient, DeepfakeError, InvalidArgumentError, TLSConfig
from deepfake_client._endpoint import parse_endpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("grpc://triton", "grpc://triton:8001"),
        ("http://triton", "http://triton:8000"),
        ("grpcs://triton", "grpcs://triton:443"),
        ("https://triton", "https://triton:443"),
        ("GRPC://Triton:1234", "grpc://triton:1234"),
        ("grpc://[::1]:8001", "grpc://[::1]:8001"),
        ("http://10.0.0.7:80/", "http://10.0.0.7:80"),
        ("https://gateway.example/team/triton/", "https://gateway.example:443/team/triton"),
    ],
)
def test_a_url_gets_the_port_of_its_protocol(url: str, endpoint: str) -> None:
    assert str(parse_endpoint(url)) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "triton:8001",
        "127.0.0.1:8001",
        "tcp://triton:8001",
        "grpc://",
        "grpc://tri ton:8001",
        "grpc://triton:port",
        "grpc://triton:99999",
        "grpc://triton:0",
        "grpc://triton:8001/path",
        "http://triton:8000/?a=b",
        "http://triton:8000/#top",
        "http://triton/../../v1",
        "http://triton\r\nX-Evil: 1",
        "grpc://[::1",
        None,
        7,
        [],
        ["grpc://a", "nope"],
    ],
)
def test_any_other_url_is_refused_in_one_line(url: object) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        DeepfakeClient([None] if url is None else url)  # type: ignore[arg-type,list-item]
    assert isinstance(refused.value, (DeepfakeError, ValueError))
    assert len(str(refused.value).splitlines()) == 1


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidArgumentError, match="token=") as refused:
        DeepfakeClient("https://user:hunter2@triton")
    assert "hunter2" not in str(refused.value)


def test_the_same_url_twice_is_one_replica() -> None:
    with DeepfakeClient(["grpc://a", "grpc://a:8001", "grpc://b"]) as client:
        assert client.endpoints == ("grpc://a:8001", "grpc://b:8001")


def test_tls_settings_without_tls_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="grpcs://"):
        DeepfakeClient("grpc://triton", tls=TLSConfig())


#: headers that frame a message or its answer, or that gRPC keeps to itself
FRAMING = (
    "Accept-Encoding",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "Expect",
    "Host",
    "HTTP2-Settings",
    "Inference-Header-Content-Length",
    "Keep-Alive",
    "Proxy-Connection",
    "Range",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    ":authority",
    "grpc-timeout",
    "grpc-accept-encoding",
    "trace-bin",
)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"timeout": "5"},
        {"timeout": True},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_connections": 0},
        {"model": ""},
        *({"headers": {name: "1"}} for name in FRAMING),
        {"headers": {"x y": "1"}},
        {"headers": {"x": "a\r\nb"}},
        {"headers": {"authorization": "a"}, "token": "b"},
        {"token": "new\nline"},
    ],
    ids=repr,
)
def test_settings_that_cannot_work_are_refused_at_once(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        DeepfakeClient("grpc://triton", **options)  # type: ignore[arg-type]
