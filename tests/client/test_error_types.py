"""Errors say in one line what was wrong, and carry what a log needs."""

from __future__ import annotations

import deepfake_client
import pytest
from deepfake_client import (
    DeadlineExceededError,
    DeepfakeError,
    ImageFormatError,
    InvalidArgumentError,
    OverloadedError,
    TLSError,
)

KINDS = [kind for kind in vars(deepfake_client).values() if isinstance(kind, type) and issubclass(kind, DeepfakeError)]


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
