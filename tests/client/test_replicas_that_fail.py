"""Servers that stop, die and come back, and wires that break: every image gets its own verdict, once."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from deepfake_client import DeepfakeClient, RequestOutcome, Verdict
from deepfake_client.preprocessing import Pixels
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.chaos_proxy import ChaosProxy, Mischief
from tests.support.variants import AnyClient

pytestmark = pytest.mark.slow
IMAGES = 2_000
DISTINCT = 20


class RestartableTriton:
    """A server that comes back under the same addresses."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._server = EmbeddedTriton(repository, drain_seconds=2)
        # The kernel ends a server together with the thread that started it, so there is one for all starts.
        self._thread = ThreadPoolExecutor(1)
        self._starting = self._thread.submit(self._server.start)
        self._starting.result()
        self.grpc_url, self.http_url = self._server.grpc_url, self._server.http_url

    def end(self, number: signal.Signals) -> None:
        """Sends the signal; requests in flight finish with SIGTERM, and are lost with SIGKILL."""
        self._starting.result()
        os.killpg(self._server.pid, number)

    def start(self) -> None:
        """Begins to start it again once it has ended."""
        self._starting = self._thread.submit(self._restart)

    def wait(self) -> None:
        """Returns when it is ready."""
        self._starting.result()

    def close(self) -> None:
        self._starting.result()
        self._server.kill()
        self._thread.shutdown()

    def _restart(self) -> None:
        self._server.wait(3)
        self._server.kill()
        grpc_port, http_port = (int(url.rsplit(":", 1)[1]) for url in (self.grpc_url, self.http_url))
        self._server = EmbeddedTriton(self._repository, drain_seconds=2, grpc_port=grpc_port, http_port=http_port)
        self._server.start()


@pytest.fixture(scope="module")
def other_triton(repository: Path) -> Iterator[RestartableTriton]:
    """A second server, which is ended and started again."""
    server = RestartableTriton(repository)
    yield server
    server.close()


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    """Images that the model tells apart."""
    source = np.random.default_rng(3)
    colours = source.integers(0, 256, (DISTINCT, 1, 1, 3), dtype=np.uint8)
    noise = source.integers(0, 60, (DISTINCT, 224, 224, 3), dtype=np.uint8)
    return list(colours // 2 + noise)


@pytest.fixture(scope="module")
def expected(triton: EmbeddedTriton, pictures: list[Pixels]) -> list[float]:
    """The score of each picture, asked for in peace."""
    with DeepfakeClient(triton.grpc_url) as client:
        scores = [client.classify_pixels(picture).scores["Deepfake"] for picture in pictures]
    assert len(set(scores)) == DISTINCT
    return scores


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def url_of(server: EmbeddedTriton | RestartableTriton, protocol: str) -> str:
    return server.grpc_url if protocol == "grpc" else server.http_url


def classify_all(
    client: AnyClient, pictures: list[Pixels], count: int, disturb: Callable[[int], None]
) -> list[Verdict]:
    """`count` images through `classify_many`; `disturb` is told how many verdicts there are."""
    images = (pictures[index % DISTINCT] for index in range(count))
    verdicts = []
    for result in client.classify_many(images, concurrency=64, timeout=60, max_retries=40):
        assert isinstance(result, Verdict), repr(result)
        verdicts.append(result)
        disturb(len(verdicts))
    return verdicts


def assert_each_got_its_own(verdicts: list[Verdict], count: int, expected: list[float]) -> None:
    assert len(verdicts) == count
    assert len({verdict.request_id for verdict in verdicts}) == count
    for index, verdict in enumerate(verdicts):
        assert verdict.scores["Deepfake"] == pytest.approx(expected[index % DISTINCT], abs=1e-5), index


def test_servers_that_stop_die_and_return_lose_no_image(
    make_client: Callable[..., AnyClient],
    protocol: str,
    triton: EmbeddedTriton,
    other_triton: RestartableTriton,
    pictures: list[Pixels],
    expected: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes: list[RequestOutcome] = []
    client = make_client([url_of(triton, protocol), url_of(other_triton, protocol)], on_request=outcomes.append)

    def disturb(done: int) -> None:
        if done == IMAGES // 5:
            other_triton.end(signal.SIGTERM)
        elif done == IMAGES * 3 // 5:
            other_triton.end(signal.SIGKILL)
        elif done in (IMAGES * 2 // 5, IMAGES * 4 // 5):
            other_triton.start()

    with caplog.at_level(logging.INFO, "deepfake_client"):
        verdicts = classify_all(client, pictures, IMAGES, disturb)
    other_triton.wait()
    assert_each_got_its_own(verdicts, IMAGES, expected)
    answered = [each for each in outcomes if each.error is None and not each.request_id.endswith("-labels")]
    assert len(answered) == IMAGES
    assert {each.endpoint for each in answered} == {url_of(triton, protocol), url_of(other_triton, protocol)}
    assert sum(each.attempts - 1 for each in answered) > 0
    assert "is left out for" in caplog.text


def test_wires_that_reset_delay_and_cut_lose_no_image(
    make_client: Callable[..., AnyClient],
    protocol: str,
    triton: EmbeddedTriton,
    pictures: list[Pixels],
    expected: list[float],
) -> None:
    mischief = Mischief(reset=0.0005, cut=0.0005, delay=0.02)
    if protocol == "http":  # a connection carries one image at a time, so it takes more to break as many
        mischief = Mischief(reset=0.01, cut=0.01, delay=0.02)
    with ChaosProxy(url_of(triton, protocol), mischief) as one, ChaosProxy(url_of(triton, protocol)) as other:
        client = make_client([one.url, other.url])

        def disturb(done: int) -> None:
            if done in (IMAGES // 3, IMAGES // 2):
                other.reset_all()

        verdicts = classify_all(client, pictures, IMAGES, disturb)
        assert one.resets + one.cuts + other.resets > 2
    assert_each_got_its_own(verdicts, IMAGES, expected)


def test_a_lone_server_that_restarts_is_waited_for(
    make_client: Callable[..., AnyClient], protocol: str, other_triton: RestartableTriton, pixels: Pixels
) -> None:
    other_triton.wait()
    client = make_client(url_of(other_triton, protocol), timeout=60, max_retries=40)
    assert client.ready()
    before = client.classify_pixels(pixels)
    other_triton.end(signal.SIGKILL)
    other_triton.start()
    assert client.classify_pixels(pixels).scores == before.scores
