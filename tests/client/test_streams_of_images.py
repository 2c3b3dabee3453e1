"""`classify_many`: in order, as results come, with failures in their place and a bounded number of images in hand."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from deepfake_client import (
    AsyncDeepfakeClient,
    AsyncFakeTransport,
    Failure,
    ImageCorruptError,
    InvalidArgumentError,
    OverloadedError,
    Verdict,
)
from deepfake_client.preprocessing import Pixels

from tests.support.pictures import encoded, photo_like
from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]
Fake = Callable[..., Any]


def brightness(pixels: Pixels) -> list[float]:
    share = float(pixels[0, 0, 0]) / 255
    return [share, 1 - share]


def grey(level: int) -> Pixels:
    return np.full((8, 8, 3), level, np.uint8)


def test_results_keep_the_order_of_the_images(make_client: Make, fake: Fake) -> None:
    client = make_client(transport=fake(brightness))
    levels = np.random.default_rng(0).integers(0, 256, 300).tolist()
    results = list(client.classify_many((grey(level) for level in levels), concurrency=16))
    assert [round(result.scores["Deepfake"] * 255) for result in results if result.ok] == levels


def test_images_are_sent_in_their_order(make_client: Make, fake: Fake) -> None:
    """Lest one stands still that all behind it wait for."""
    sent = []

    def scores(pixels: Pixels) -> list[float]:
        sent.append(int(pixels[0, 0, 0]))
        return brightness(pixels)

    client = make_client(transport=fake(scores))
    client.classify(grey(1))  # learns the labels
    sent.clear()
    levels = [number % 256 for number in range(1000)]
    assert len(list(client.classify_many(map(grey, levels), concurrency=1))) == len(levels)
    assert sent == levels


def test_a_failure_stands_in_its_place(make_client: Make, fake: Fake, tmp_path: Any) -> None:
    good = encoded(photo_like(40, 30, 1), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(good[:-200])
    images = [good, b"", tmp_path / "cut.jpg", good, 7]
    results = list(make_client(transport=fake()).classify_many(images))
    assert [result.ok for result in results] == [True, False, False, True, False]
    cut = results[2]
    assert isinstance(cut, Failure)
    assert isinstance(cut.error, ImageCorruptError)
    assert cut.to_dict() == {
        "source": str(tmp_path / "cut.jpg"),
        "error": f"{tmp_path / 'cut.jpg'}: truncated JPEG: the file ends before the image does",
    }


def test_a_request_that_fails_does_not_stop_the_others(make_client: Make, fake: Fake) -> None:
    transport = fake(errors=[None, OverloadedError("full"), None])
    client = make_client(transport=transport, max_retries=0)
    results = list(client.classify_many([grey(1)] * 5, concurrency=1))
    assert sorted(result.ok for result in results) == [False, True, True, True, True]


def test_a_long_stream_is_read_only_as_far_as_it_is_needed(make_client: Make, fake: Fake) -> None:
    taken = 0

    def endless() -> Iterator[Pixels]:
        nonlocal taken
        while True:
            taken += 1
            yield grey(1)

    results = make_client(transport=fake()).classify_many(endless(), concurrency=4)
    for _ in range(50):
        assert next(results).ok
    results.close()
    assert taken <= 50 + 2 * 4 + 4 + 1


def test_images_are_let_go_once_they_have_their_verdict(make_client: Make, fake: Fake) -> None:
    class Image(np.ndarray):
        pass

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    def images() -> Iterator[Pixels]:
        nonlocal most
        for _ in range(200):
            image = np.zeros((50, 50, 3), np.uint8).view(Image)
            alive.add(_Key(image))
            most = max(most, len(alive))
            yield image

    for result in make_client(transport=fake()).classify_many(images(), concurrency=4):
        assert result.ok
    assert most <= 2 * 4 + 4 + 2


class _Key:
    """Lives as long as an array that refers to it, since arrays themselves cannot be in a set."""

    def __init__(self, image: Any) -> None:
        image.key = self


def test_an_empty_stream_has_no_results(make_client: Make, fake: Fake) -> None:
    assert list(make_client(transport=fake()).classify_many([])) == []


def test_what_the_stream_itself_raises_comes_after_the_results_before_it(make_client: Make, fake: Fake) -> None:
    def broken() -> Iterator[Pixels]:
        yield grey(1)
        yield grey(2)
        raise KeyError("the database went away")

    results = make_client(transport=fake()).classify_many(broken())
    assert next(results).ok
    assert next(results).ok
    with pytest.raises(KeyError, match="database"):
        next(results)


def test_wrong_arguments_are_refused_before_anything_is_read(make_client: Make, fake: Fake) -> None:
    client = make_client(transport=fake())
    for options in ({"concurrency": 0}, {"timeout": -1}, {"max_retries": "many"}, {"traceparent": "x"}):
        with pytest.raises(InvalidArgumentError):
            next(client.classify_many([grey(1)], **options))


def test_a_consumer_that_stops_leaves_no_threads_or_tasks(make_client: Make, fake: Fake) -> None:
    client = make_client(transport=fake())
    client.classify(grey(1))
    before = threading.active_count()
    for _ in range(5):
        results = client.classify_many((grey(1) for _ in range(100)), concurrency=4)
        assert next(results).ok
        results.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before + 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before + 4


async def test_an_async_stream_gives_results_while_it_waits() -> None:
    arrived = asyncio.Event()

    async def slow() -> AsyncIterator[Pixels]:
        yield grey(1)
        await arrived.wait()  # the second image comes only after the first verdict was seen
        yield grey(2)

    async with AsyncDeepfakeClient(transport=AsyncFakeTransport()) as client:
        seen = []
        async for result in client.classify_many(slow()):
            seen.append(result)
            arrived.set()
    assert [result.ok for result in seen] == [True, True]


async def test_cancelling_the_consumer_ends_the_requests() -> None:
    waiting = asyncio.Event()

    class Hanging(AsyncFakeTransport):
        cancelled = 0

        async def infer(self, _request: Any, _timeout: float) -> Any:
            waiting.set()
            try:
                return await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

    transport = Hanging()
    async with AsyncDeepfakeClient(transport=transport) as client:

        async def consume() -> list[Verdict | Failure]:
            return [result async for result in client.classify_many([grey(1)] * 50, concurrency=8)]

        task = asyncio.create_task(consume())
        await waiting.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.cancelled == 8
        assert len(asyncio.all_tasks()) == 1


async def test_images_that_are_cancelled_end_the_stream_after_the_results_before() -> None:
    async def images() -> AsyncIterator[Any]:
        yield grey(1)
        raise asyncio.CancelledError

    async with AsyncDeepfakeClient(transport=AsyncFakeTransport()) as client:
        results = client.classify_many(images())
        assert (await anext(results)).ok
        with pytest.raises(asyncio.CancelledError):
            await anext(results)


def test_one_client_serves_many_threads(make_client: Make, fake: Fake) -> None:
    client = make_client(transport=fake(brightness))

    def ask(level: int) -> bool:
        return round(client.classify(grey(level)).scores["Deepfake"] * 255) == level

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, list(range(256)) * 2))
