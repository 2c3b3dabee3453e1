"""Many images through tasks: in order, as they come, with a bounded number of them in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

from ._classify_many import decoding_threads
from ._errors import DeepfakeError
from ._images import name_of
from ._verdict import Failure, Verdict
from ._verdict_log import PreparedImage
from .preprocessing import ImageSource

_END = object()


async def classify_many(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource],
    prepare: Callable[[ImageSource], Awaitable[PreparedImage]],
    send: Callable[[PreparedImage, str | None], Awaitable[Verdict]],
    concurrency: int,
) -> AsyncGenerator[Verdict | Failure, None]:
    """Prepares and sends `images`; results come in their order, also while the next image is waited for."""
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
            return Failure(source, error)

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
    try:
        return await iterator.__anext__()
    except StopAsyncIteration:
        return _END


async def _iterate(
    images: Iterable[ImageSource] | AsyncIterable[ImageSource],
) -> AsyncGenerator[ImageSource, None]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image
