"""Many images through threads or tasks: in order, as they come, with a bounded number of them in memory."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ._errors import DeepfakeError, bare
from ._images import name_of
from ._tensors import PreparedImage
from ._verdict import Failure, Verdict
from .preprocessing import ImageSource

_END = object()


def decoding_threads(concurrency: int) -> int:
    """Images decoded at a time: Pillow lets go of the interpreter's lock, so one for each core."""
    return min(concurrency, os.cpu_count() or 1)


def classify_many(
    images: Iterable[ImageSource],
    prepare: Callable[[ImageSource], PreparedImage],
    send: Callable[[PreparedImage, str | None], Verdict],
    concurrency: int,
) -> Iterator[Verdict | Failure]:
    """Prepares and sends `images`, first come first served; results come in their order."""
    decoders = decoding_threads(concurrency)
    window = 2 * concurrency + decoders

    def classify(prepared: Future[PreparedImage], source: str | None) -> Verdict | Failure:
        try:
            return send(prepared.result(), source)
        except DeepfakeError as error:
            return Failure(source, bare(error))

    # Two pools, so that images are decoded while others are on their way, and both in their order: whoever has waited
    # longest is next, since everything behind it waits for it.
    decoding = ThreadPoolExecutor(decoders, "deepfake-decode")
    sending = ThreadPoolExecutor(concurrency, "deepfake-send")
    pending: deque[Future[Verdict | Failure]] = deque()
    broken: Exception | None = None
    try:
        iterator = iter(images)
        while True:
            try:
                image = next(iterator)
            except StopIteration:
                break
            except Exception as error:
                broken = error
                break
            pending.append(sending.submit(classify, decoding.submit(prepare, image), name_of(image)))
            del image  # a photo is a hundred times its pixels
            while pending and (len(pending) >= window or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if broken is not None:
            raise broken
    finally:
        # A consumer that stops early is not kept waiting for requests that nobody wants any more.
        for pool in (sending, decoding):
            pool.shutdown(wait=not pending, cancel_futures=True)


async def async_classify_many(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource],
    prepare: Callable[[ImageSource], Awaitable[PreparedImage]],
    send: Callable[[PreparedImage, str | None], Awaitable[Verdict]],
    concurrency: int,
) -> AsyncGenerator[Verdict | Failure, None]:
    """`classify_many` for asyncio; results come also while the next image is waited for."""
    decoders = decoding_threads(concurrency)
    decoding, sending = asyncio.Semaphore(decoders), asyncio.Semaphore(concurrency)

    async def classify(image: ImageSource) -> Verdict | Failure:
        source = name_of(image)
        try:
            async with decoding:
                prepared = await prepare(image)
            del image  # the pixels are a hundredth of a photo; the rest need not wait for the network
            async with sending:
                return await send(prepared, source)
        except DeepfakeError as error:
            return Failure(source, bare(error))

    pending: deque[asyncio.Task[Verdict | Failure]] = deque()
    window = 2 * concurrency + decoders
    iterator = _iterate(images)
    upcoming: asyncio.Task[object] | None = None
    broken: Exception | None = None
    ended = False
    try:
        while pending or not ended:
            if not ended and upcoming is None and len(pending) < window:
                upcoming = asyncio.ensure_future(_next(iterator))
            await asyncio.wait(
                [task for task in (upcoming, pending[0] if pending else None) if task is not None],
                return_when=asyncio.FIRST_COMPLETED,
            )
            if upcoming is not None and upcoming.done():
                try:
                    image = upcoming.result()
                except Exception as error:
                    broken, ended = error, True
                else:
                    if image is _END:
                        ended = True
                    else:
                        pending.append(asyncio.ensure_future(classify(image)))  # type: ignore[arg-type]
                    del image
                upcoming = None
            while pending and pending[0].done():
                yield pending.popleft().result()
        if broken is not None:
            raise broken
    finally:
        tasks: list[asyncio.Task[object]] = [*pending, *([upcoming] if upcoming is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await iterator.aclose()


async def _next(iterator: AsyncIterator[ImageSource]) -> object:
    return await anext(iterator, _END)


async def _iterate(images: Iterable[ImageSource] | AsyncIterable[ImageSource]) -> AsyncGenerator[ImageSource, None]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image
