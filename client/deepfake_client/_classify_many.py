"""Many images through threads: in order, as they come, with a bounded number of them in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ._errors import DeepfakeError
from ._images import name_of
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
    """Prepares and sends `images`, first come first served; results come in their order."""
    decoders = decoding_threads(concurrency)
    window = 2 * concurrency + decoders

    def classify(prepared: Future[PreparedImage], source: str | None) -> Verdict | Failure:
        try:
            return send(prepared.result(), source)
        except DeepfakeError as error:
            return Failure(source, error)

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
