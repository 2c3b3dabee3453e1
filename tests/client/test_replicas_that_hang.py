"""A replica that takes connections and says nothing: neither refused nor reset."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from deepfake_client.preprocessing import Pixels
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.servers import running
from tests.support.variants import AnyClient

CALLS = 10


@pytest.fixture
def frozen(repository: Path) -> Iterator[EmbeddedTriton]:
    """A server that was stopped in its tracks."""
    with running(repository) as server:
        process = psutil.Process(server.pid)
        process.send_signal(signal.SIGSTOP)
        yield server
        process.send_signal(signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_one_that_was_frozen_from_the_start_costs_no_verdict(
    make_client: Callable[..., AnyClient], protocol: str, triton: EmbeddedTriton, frozen: EmbeddedTriton, pixels: Pixels
) -> None:
    client = make_client([getattr(server, f"{protocol}_url") for server in (frozen, triton)], timeout=8)
    assert client.ready(timeout=8)
    assert len({client.classify_pixels(pixels).label for _ in range(CALLS)}) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_listener_that_stays_silent_costs_no_verdict(
    make_client: Callable[..., AnyClient], protocol: str, triton: EmbeddedTriton, pixels: Pixels
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = [f"{protocol}://127.0.0.1:{silent.getsockname()[1]}", getattr(triton, f"{protocol}_url")]
        client = make_client(urls, timeout=4)
        assert len({client.classify_pixels(pixels).label for _ in range(CALLS)}) == 1
