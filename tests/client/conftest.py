"""What the client's tests share."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from deepfake_client import AsyncFakeTransport, FakeTransport
from deepfake_client.preprocessing import Pixels

from tests.support.variants import AnyClient, client_of


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two clients."""
    return str(request.param)


@pytest.fixture
def fake(kind: str) -> Callable[..., Any]:
    """Makes a fake transport for the client of this kind."""
    return FakeTransport if kind == "sync" else AsyncFakeTransport


@pytest.fixture
def make_client(kind: str, request: pytest.FixtureRequest) -> Callable[..., AnyClient]:
    """Makes clients of this kind, which are closed after the test."""

    def make(*arguments: Any, **options: Any) -> AnyClient:
        client = client_of(kind, *arguments, **options)
        request.addfinalizer(lambda: client.__exit__(None, None, None))
        return client

    return make


@pytest.fixture
def pixels() -> Pixels:
    """One image as the model takes it."""
    return np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)


@pytest.fixture
def nobody_listens() -> str:
    """host:port of a port that refuses connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
