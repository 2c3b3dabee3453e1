"""Logs, hooks, trace context and headers: what a team needs to run the client, and no secret in any of it."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deepfake_client import (
    ConnectionFailedError,
    DeepfakeError,
    InternalServerError,
    InvalidArgumentError,
    OverloadedError,
    RequestOutcome,
    TLSConfig,
)
from deepfake_client.preprocessing import Pixels

from tests.support.variants import AnyClient, client_of

Make = Callable[..., AnyClient]
Fake = Callable[..., Any]
SECRET = "hunter2-very-secret"  # noqa: S105
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_hook_is_told_how_each_request_ended(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    outcomes: list[RequestOutcome] = []
    transport = fake(errors=[OverloadedError("full"), None, InternalServerError("broken")])
    client = make_client(transport=transport, on_request=outcomes.append)
    client.classify_pixels(pixels, request_id="first")
    with pytest.raises(InternalServerError):
        client.classify_pixels(pixels, request_id="second")
    first, labels, second = outcomes
    assert (first.method, first.request_id, first.attempts, first.images) == ("infer", "first", 2, 1)
    assert (first.bytes_sent, first.bytes_received, first.error) == (2 * 150_528, 8, None)
    assert first.latency_seconds >= 0.05  # the pause is part of it
    assert labels.request_id == "first-labels"
    assert (second.attempts, second.endpoint) == (1, "fake://server")
    assert isinstance(second.error, InternalServerError)


def test_a_hook_that_fails_harms_nobody(
    make_client: Make, fake: Fake, pixels: Pixels, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(_outcome: RequestOutcome) -> None:
        raise KeyError(SECRET)

    assert make_client(transport=fake(), on_request=hook).classify_pixels(pixels).label == "Deepfake"
    assert "the on_request hook raised KeyError" in caplog.text
    assert SECRET not in caplog.text


def test_trace_context_and_headers_are_passed_on(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake()
    client = make_client(transport=transport, headers={"X-Api-Key": "client", "x-team": "news"}, token=lambda: "t0k3n")
    client.classify_pixels(pixels, traceparent=TRACEPARENT, headers={"X-API-KEY": "call"})
    assert dict(transport.requests[0].headers) == {
        "x-api-key": "call",
        "x-team": "news",
        "authorization": "Bearer t0k3n",
        "traceparent": TRACEPARENT,
    }


def test_a_malformed_traceparent_is_refused(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    for value in ("", "00-abc", TRACEPARENT.upper() + "\n", 7):
        with pytest.raises(InvalidArgumentError, match="traceparent"):
            make_client(transport=fake()).classify_pixels(pixels, traceparent=value or "x")


def test_a_token_function_is_asked_for_each_attempt(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    tokens = iter(["one", "two", "three"])
    transport = fake(errors=[ConnectionFailedError("reset")])
    make_client(transport=transport, token=lambda: next(tokens)).classify_pixels(pixels)
    assert [dict(request.headers)["authorization"] for request in transport.requests] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a\nb", "é", 7])
def test_a_request_id_that_cannot_be_sent_is_refused(
    make_client: Make, fake: Fake, pixels: Pixels, request_id: Any
) -> None:
    with pytest.raises(InvalidArgumentError, match="request_id"):
        make_client(transport=fake()).classify_pixels(pixels, request_id=request_id)


def test_the_log_is_quiet_by_default_and_says_what_happened_when_asked(
    make_client: Make, fake: Fake, pixels: Pixels, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "deepfake_client"):
        client = make_client(transport=fake(errors=[OverloadedError("the queue is full")]))
        client.classify_pixels(pixels, request_id="id-7")
    assert {record.name for record in caplog.records} == {"deepfake_client"}
    assert all(record.levelno <= logging.INFO for record in caplog.records)
    assert "infer id-7: attempt 1 at fake://server failed (the queue is full), next in 0." in caplog.text
    assert "infer id-7 to fake://server answered after 2 attempt(s)" in caplog.text


@pytest.mark.parametrize("settings", [{"token": SECRET}, {"token": lambda: SECRET}, {"headers": {"x-api-key": SECRET}}])
def test_a_secret_is_in_no_repr_log_error_or_traceback(
    make_client: Make, fake: Fake, pixels: Pixels, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    # A gateway that repeats what it was sent.
    echo = OverloadedError(f"rejected: Authorization: Bearer {SECRET}; x-api-key={SECRET}")
    outcomes: list[RequestOutcome] = []
    with caplog.at_level(logging.DEBUG):
        transport = fake(errors=[echo, InternalServerError(f"no: {SECRET}")])
        client = make_client(transport=transport, on_request=outcomes.append, **settings)
        with pytest.raises(DeepfakeError) as raised:
            client.classify_pixels(pixels)
    shown = [repr(client), repr(raised.value), str(raised.value), caplog.text, repr(outcomes), repr(transport.requests)]
    shown.append("".join(traceback.format_exception(raised.value)))
    trace = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    shown += [repr(frame.locals) for frame in trace.stack if "/deepfake_client/" in frame.filename]
    for text in shown:
        assert SECRET not in text
    assert "[redacted]" in str(raised.value)


def test_a_secret_is_in_no_error_about_the_settings() -> None:
    from deepfake_client import DeepfakeClient

    for settings in ({"token": SECRET + "\n"}, {"headers": {"x-api-key": SECRET + "é"}}):
        with pytest.raises(InvalidArgumentError) as raised:
            DeepfakeClient("grpc://a", **settings)  # type: ignore[arg-type]
        assert SECRET not in str(raised.value)


def test_credentials_are_not_pickled_or_copied_by_accident(make_client: Make, fake: Fake) -> None:
    client = make_client(transport=fake(), token=SECRET)
    identity = getattr(client, "_identity", None) or client._client._identity
    for action in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            action(identity)


def test_a_secret_sent_in_plain_text_to_another_host_is_warned_of_once(
    make_client: Make, caplog: pytest.LogCaptureFixture
) -> None:
    make_client("grpc://triton.example", token=SECRET)
    make_client("grpc://127.0.0.1", token=SECRET)
    make_client("grpcs://triton.example", token=SECRET)
    assert [record.getMessage() for record in caplog.records] == [
        "headers or a token go to grpc://triton.example:8001 in plain text; grpcs:// and https:// protect them"
    ]


def test_tls_files_that_cannot_be_used_are_named_at_once(tmp_path: Path) -> None:
    from tests.support.variants import client_of

    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")
    for tls in (
        {"ca_file": tmp_path / "missing.pem"},
        {"ca_file": broken},
        {"cert_file": broken, "key_file": broken},
    ):
        for url in ("grpcs://triton", "https://triton"):
            with pytest.raises(InvalidArgumentError, match=r"\.pem"):
                client_of("sync", url, tls=TLSConfig(**tls))
    with pytest.raises(InvalidArgumentError, match="key_file"):
        TLSConfig(cert_file="a.pem")


def test_the_source_in_verdicts_and_errors_can_be_chosen(make_client: Make, fake: Fake) -> None:
    client = make_client(transport=fake())
    with pytest.raises(DeepfakeError, match=r"^upload 7: empty file$"):
        client.classify(b"", source="upload 7")
    named = io.BytesIO(b"")
    named.name = "photo.jpg"
    with pytest.raises(DeepfakeError, match=r"^photo\.jpg: empty file$"):
        client.classify(named)


@pytest.mark.parametrize("source", [7, b"photo.jpg", Path("photo.jpg")])
def test_a_source_that_is_no_text_is_refused(make_client: Make, fake: Fake, pixels: Pixels, source: Any) -> None:
    client = make_client(transport=fake())
    with pytest.raises(InvalidArgumentError, match=f"source must be text, not {type(source).__name__}"):
        client.classify_pixels(pixels, source=source)
    with pytest.raises(InvalidArgumentError, match="source must be text"):
        client.classify(b"", source=source)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", ["limits", "headers", "tls", "token", "on_request"])
def test_a_setting_of_the_wrong_kind_is_refused_at_once(kind: str, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{name} must be .*not list"):
        client_of(kind, "grpcs://triton", **{name: []})
