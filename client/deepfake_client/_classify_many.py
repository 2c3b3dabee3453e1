"""Many images through threads: in order, as they come, with a bounded number of them in memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ._errors import DeepfakeError
from ._image_source import name_of
from ._verdict import Failure, Verdict
from ._verdict_log import PreparedImage
from .preprocessing import ImageSource


def decoding_threads(concurrency: int) -> int:
    """Images decoded at a time: Pillow lets go of the interpreter's lock, so one for each core."""
    return min(concurrency, os.cpu_count() or 1)


def classify_many(
    images: Iterable[ImageSource],
    prepare: Callable[[ImageSource], PreparedImage],
    send: Callable[[PreparedImage, str | None], Verdict],
    concurrency: int,
) -> Iterator[Verdict | Failure]:
    """Prepares and sends `images`; results come in their order."""
    decoders = decoding_threads(concurrency)
    decoding, sending = threading.Semaphore(decoders), threading.Semaphore(concurrency)

    def classify(image: ImageSource) -> Verdict | Failure:
        source = name_of(image)
        try:
            with decoding:
                prepared = prepare(image)
            del image  # the pixels are a hundredth of a photo; the rest need not wait for the network
            with sending:
                return send(prepared, source)
        except DeepfakeError as error:
            return Failure(source, error)

    # As many threads as can send and decode at the same time, so that neither waits for the other.
    pool = ThreadPoolExecutor(concurrency + decoders, "deepfake-classify")
    pending: deque[Future[Verdict | Failure]] = deque()
    window = 2 * concurrency + decoders
    broken: Exception | None = None
    try:
        iterator = iter(images)
        while True:
            try:
                pending.append(pool.submit(classify, next(iterator)))
            except StopIteration:
                break
            except Exception as error:
                broken = error
                break
            while pending and (len(pending) >= window or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if broken is not None:
            raise broken
    finally:
        # A consumer that stops early is not kept waiting for requests that nobody wants any more.
        pool.shutdown(wait=not pending, cancel_futures=True)
