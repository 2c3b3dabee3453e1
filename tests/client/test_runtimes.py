"""Where the client runs beside plain threads and one event loop, and what may be raised into it there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import aiohttp
import pytest
import urllib3
from deepfake_client import AsyncDeepfakeClient, AsyncFakeTransport, DeepfakeClient, InvalidArgumentError
from deepfake_client.preprocessing import Pixels
from urllib3.connection import HTTPConnection

from tests.client.test_http_connections import Handler, Server, serving
from tests.support.pictures import encoded, photo_like

SCORES = {"Deepfake": 0.75, "Real one": 0.25}
PROGRAM = """
import sys
{before}
import numpy as np
from deepfake_client import DeepfakeClient
with DeepfakeClient(sys.argv[1], max_connections=1, timeout=20) as client:
    def call():
        assert client.classify_pixels(np.zeros((224, 224, 3), np.uint8)).scores == {{"Deepfake": 0.75, "Real one": 0.25}}
    call()
{after}
    for _ in range(5):
        call()
"""
WITHOUT_POLL = "import select\ndel select.poll"
GREENLETS = """
    from gevent import Timeout, joinall, sleep, spawn
    def hurried():
        try:
            with Timeout(0.05):
                call()
        except Timeout:
            pass
    jobs = [spawn(hurried if each % 2 else call) for each in range(20)]
    sleep(0.1)
    for job in jobs[::5]:
        job.kill()
    joinall(jobs, timeout=20, raise_error=True)
"""


def run(server: Server, before: str = "", after: str = "") -> None:
    program = PROGRAM.format(before=before, after=after)
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", program, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_platform_without_poll_has_calls_and_keeps_its_connection() -> None:
    with serving(Handler.answer) as server:
        run(server, before=WITHOUT_POLL)
        assert server.connections == 1


@pytest.mark.slow
def test_a_poll_that_is_taken_away_later_costs_connections_and_no_call() -> None:
    with serving(Handler.answer) as server:
        run(server, after="    " + WITHOUT_POLL.replace("\n", "\n    "))


@pytest.mark.slow
def test_greenlets_that_are_killed_or_time_out_give_their_connections_back() -> None:
    def respond(handler: Handler, body: bytes) -> None:
        time.sleep(0.02)
        handler.answer(body)

    with serving(respond) as server:
        run(server, before="from gevent import monkey\nmonkey.patch_all()", after=GREENLETS)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit])
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "kept"])
@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (HTTPConnection, "is_connected"),
        (HTTPConnection, "connect"),
        (HTTPConnection, "request"),
        (HTTPConnection, "getresponse"),
        (urllib3.HTTPResponse, "read1"),
        (urllib3.HTTPResponse, "close"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_is_raised_the_connection_is_given_back(
    pixels: Pixels, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, raised: type[BaseException], fresh: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    with serving(Handler.answer) as server, DeepfakeClient(server.url, max_connections=1, timeout=5) as client:
        if not fresh:
            client.classify_pixels(pixels)
        with monkeypatch.context() as broken:
            broken.setattr(owner, step, property(fail) if step == "is_connected" else fail)
            if step == "connect" and not fresh:
                assert client.classify_pixels(pixels).ok  # an open one is not opened again
            else:
                for _ in range(2):
                    with pytest.raises(raised):
                        client.classify_pixels(pixels)
        assert client.classify_pixels(pixels).scores == SCORES


@pytest.mark.parametrize("raised", [asyncio.CancelledError, MemoryError, GeneratorExit])
@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (aiohttp.TCPConnector, "connect"),
        (aiohttp.ClientResponse, "start"),
        (aiohttp.StreamReader, "iter_chunked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_whatever_is_raised_in_a_task_the_connection_is_given_back(
    pixels: Pixels, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, raised: type[BaseException]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    with serving(Handler.answer) as server:
        async with AsyncDeepfakeClient(server.url, max_connections=1, timeout=5) as client:
            with monkeypatch.context() as broken:
                broken.setattr(owner, step, fail)
                for _ in range(2):
                    with pytest.raises(raised):
                        await client.classify_pixels(pixels)
            assert (await client.classify_pixels(pixels)).scores == SCORES


async def test_the_client_for_threads_works_where_a_loop_runs(pixels: Pixels) -> None:
    with serving(Handler.answer) as server, DeepfakeClient(server.url) as client:
        assert client.classify_pixels(pixels).scores == SCORES
        assert [result.ok for result in client.classify_many([encoded(photo_like(32, 32, 1), "PNG")] * 3)] == [True] * 3


def test_the_client_for_asyncio_says_that_it_needs_a_loop(pixels: Pixels) -> None:
    client = AsyncDeepfakeClient(transport=AsyncFakeTransport())
    with pytest.raises(InvalidArgumentError, match="use DeepfakeClient"):
        client.classify_pixels(pixels).send(None)  # as the loop of another library would
