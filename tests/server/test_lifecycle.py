"""Stopping under load, and a worker that dies."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.calls import BareClient
from tests.support.pictures import encoded, photo_like
from tests.support.serving import DEADLINE_SECONDS, Serving, serving

DRAIN_SECONDS = 20


class Loop:
    """Calls over one kept connection until it is refused."""

    def __init__(self, url: str, call: Callable[[BareClient], object]) -> None:
        self.answered = 0
        self.refused: str | None = None
        self._url, self._call = url, call
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with BareClient(self._url) as client:
            while self.refused is None:
                try:
                    self._call(client)
                    self.answered += 1
                except (InferenceServerException, OSError, http.client.HTTPException) as error:
                    self.refused = f"{type(error).__name__}: {error}"


class HttpLoop:
    """The same over HTTP until it is told to disconnect, written by hand, to tell a refused request from a cut one."""

    def __init__(self, url: str, body: bytes, headers: dict[str, str]) -> None:
        self.answered = 0
        self.cut = False
        self.leave = threading.Event()
        self._address = url.removeprefix("http://")
        self._body, self._headers = body, headers
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=DEADLINE_SECONDS)
        try:
            while not self.leave.is_set():
                connection.request("POST", "/v2/models/deepfake_vs_real_image/infer", self._body, self._headers)
                response = connection.getresponse()
                response.read()
                assert response.status == 200
                self.answered += 1
        except (OSError, http.client.HTTPException):
            self.cut = True
        finally:
            connection.close()


def small_request() -> tuple[bytes, dict[str, str]]:
    """Eight images in one request of a few KB, which arrives whole or not at all."""
    image = encoded(photo_like(48, 48, 1), "JPEG")
    tensor = (len(image).to_bytes(4, "little") + image) * 8
    parameters = {"binary_data_size": len(tensor)}
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [8, 1], "parameters": parameters}]
    header = json.dumps({"inputs": inputs}).encode()
    return header + tensor, {"Inference-Header-Content-Length": str(len(header))}


@pytest.mark.slow
def test_a_stop_under_load_over_http_serves_on_until_its_callers_have_left(repository: Path) -> None:
    with serving(repository, "--drain-seconds", str(DRAIN_SECONDS)) as server:
        loops = [HttpLoop(server.http_url, *small_request()) for _ in range(6)]
        wait_for_answers(loops)
        server.signal(signal.SIGTERM)
        server.read_until("^Stopping")
        wait_for_answers(loops)
        for loop in loops:
            loop.leave.set()
        for loop in loops:
            loop.thread.join(DEADLINE_SECONDS)
        status, _, stderr = server.end()
    assert status == 0
    assert "Exit timeout expired" not in stderr
    assert [loop.cut for loop in loops] == [False] * len(loops)


@pytest.mark.slow
def test_a_caller_that_stays_connected_over_http_holds_a_stop_up_for_the_drain_and_no_longer(repository: Path) -> None:
    with serving(repository, "--drain-seconds", "3") as server:
        address = ("127.0.0.1", int(server.http_url.rsplit(":", 1)[1]))
        with socket.create_connection(address) as idle:
            idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(12) == b"HTTP/1.1 200"
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            status, _, stderr = server.end()
            lasted = time.monotonic() - began
    assert status == 0
    assert stderr.endswith("Stopped\n")
    assert 3 <= lasted < 15
    assert server.remains() == []


@pytest.mark.slow
def test_a_stop_under_load_over_grpc_answers_what_it_took(repository: Path) -> None:
    image = encoded(photo_like(640, 480, 1), "JPEG")
    pixels = np.zeros((4, 224, 224, 3), np.uint8)
    with serving(repository, "--drain-seconds", str(DRAIN_SECONDS)) as server:
        loops = [Loop(server.grpc_url, lambda client: client.classify_pixels(pixels)) for _ in range(4)]
        loops += [Loop(server.grpc_url, lambda client: client.classify_image(image)) for _ in range(4)]
        wait_for_answers(loops)
        server.signal(signal.SIGTERM)
        for loop in loops:
            loop.thread.join(DEADLINE_SECONDS)
        status, _, stderr = server.end()
    assert status == 0
    assert "Exit timeout expired" not in stderr
    # Each loop ended because it was turned away, in words that say that another server should be asked.
    for loop in loops:
        assert loop.refused is not None
        assert "UNAVAILABLE" in loop.refused, loop.refused


def wait_for_answers(loops: list[Loop] | list[HttpLoop]) -> None:
    """Two answers more for each."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    wanted = [loop.answered + 2 for loop in loops]
    while any(loop.answered < count for loop, count in zip(loops, wanted, strict=True)):
        if time.monotonic() > deadline:
            pytest.fail("the server did not answer in time")
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("worker", ["image_decoder", "deepfake_vs_real", "provenance"])
def test_a_worker_that_is_killed_ends_the_server_instead_of_leaving_it_ready_and_failing(
    repository: Path, worker: str
) -> None:
    with serving(repository) as server:
        assert probe(server) == 200
        stub = next(child for child in server.children if f"{worker}_0_0" in " ".join(child.cmdline()))
        stub.kill()
        status, _, stderr = server.end()
        assert status == 1
        assert "a worker process of the server died" in stderr or "Triton ended by itself" in stderr
        assert probe(server) is None  # a readiness probe is refused, and callers go to another replica
        with BareClient(server.grpc_url) as client, pytest.raises(InferenceServerException, match="UNAVAILABLE"):
            client.classify_pixels(np.zeros((1, 224, 224, 3), np.uint8))
        assert server.remains() == []


def probe(server: Serving) -> int | None:
    """Status of the readiness endpoint, None when nobody answers."""
    try:
        with urllib.request.urlopen(f"{server.http_url}/v2/health/ready", timeout=10) as response:
            return int(response.status)
    except urllib.error.URLError:
        return None
