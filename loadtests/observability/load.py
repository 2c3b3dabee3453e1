"""Callers of a server, few or many."""

from __future__ import annotations

import asyncio
import itertools
import threading
from functools import partial

import numpy as np
from deepfake_client import AsyncDeepfakeClient, DeepfakeError

from loadtests.traffic.pool import encoded, picture

_DEADLINE_SECONDS = 60.0
_PAUSE_SECONDS = 0.5


class Callers:
    """Each sends an image that nobody sent before, waits for the answer, and pauses; as a context manager.

    Args:
        pause_seconds: of each, after an answer; after an error it is always half a second.
        mixed: send pixels, an image file and what is no image in turn, so that every panel sees something; else pixels.
    """

    def __init__(
        self, url: str, callers: int = 1, pause_seconds: float = _PAUSE_SECONDS, *, mixed: bool = False
    ) -> None:
        self._end = threading.Event()
        work = partial(self._work, url, callers, pause_seconds, mixed)
        self._thread = threading.Thread(target=lambda: asyncio.run(work()), name="callers")

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    async def _work(self, url: str, callers: int, pause_seconds: float, mixed: bool) -> None:
        connect = partial(AsyncDeepfakeClient, url, max_retries=0, timeout=_DEADLINE_SECONDS, max_connections=2048)
        random = np.random.default_rng()

        async def call() -> None:
            for number in itertools.count():
                kind = number % 3 if mixed else 0
                try:
                    if kind == 0:
                        await by_pixels.classify_pixels(random.integers(0, 256, (224, 224, 3), dtype=np.uint8))
                    else:
                        await by_image.classify(encoded(picture(320, random)) if kind == 1 else b"no image")
                    await asyncio.sleep(pause_seconds)
                except DeepfakeError:  # what fails is there to be seen in the metrics
                    await asyncio.sleep(_PAUSE_SECONDS)

        async with connect() as by_pixels, connect(decode="server") as by_image:
            calls = asyncio.gather(*(call() for _ in range(callers)))
            await asyncio.to_thread(self._end.wait)
            calls.cancel()
            await asyncio.gather(calls, return_exceptions=True)
