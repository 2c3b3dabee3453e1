"""Errors say in one line what was wrong, carry what a log needs, and travel between processes."""

from __future__ import annotations

import pickle

import deepfake_client
import pytest
from deepfake_client import (
    DeadlineExceededError,
    DeepfakeError,
    ImageFormatError,
    InvalidArgumentError,
    OverloadedError,
    ServerError,
    TLSError,
)

KINDS = [kind for kind in vars(deepfake_client).values() if isinstance(kind, type) and issubclass(kind, DeepfakeError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_can_be_pickled_with_all_it_carries(kind: type[DeepfakeError]) -> None:
    context = {"retry_after_seconds": 2.5} if issubclass(kind, ServerError) else {}
    error = kind("reason", source="a.jpg", request_id="7", endpoint="grpc://a:1", attempts=3, **context)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_hierarchy(kind: type[DeepfakeError]) -> None:
    from deepfake_client import _errors

    assert kind.__name__ in (_errors.__doc__ or "")


def test_the_message_is_one_line_whatever_the_server_sent() -> None:
    error = OverloadedError("<html>\n<b>bad\x00\x1b[31m</b>\r\n" + "x" * 10_000, endpoint="http://a:1")
    assert len(str(error).splitlines()) == 1
    assert str(error).isprintable()
    assert len(str(error)) < 500


def test_the_message_names_image_endpoint_and_attempts() -> None:
    error = OverloadedError("queue full", source="a.jpg", endpoint="grpc://a:8001", attempts=4)
    assert str(error) == "a.jpg: grpc://a:8001: queue full (4 attempts)"
    assert str(ImageFormatError("empty file")) == "image: empty file"


def test_builtin_kinds_catch_what_a_reader_expects() -> None:
    assert issubclass(InvalidArgumentError, ValueError)
    assert issubclass(DeadlineExceededError, TimeoutError)


def test_a_refused_certificate_is_not_retried() -> None:
    assert not TLSError("untrusted").retryable
