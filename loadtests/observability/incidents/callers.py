"""Callers of a server, as many as one wants at the moment."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
from deepfake_client import AsyncDeepfakeClient, DeepfakeError

CALLERS = 2
PAUSE_SECONDS = 0.5
_DEADLINE_SECONDS = 60.0


class Callers:
    """Each sends an image that nobody sent before, waits for the answer, and pauses; as a context manager.

    Args:
        url: of the server, grpc:// or http://.
        callers: how many.
        pause_seconds: of each, after an answer; after an error it is always PAUSE_SECONDS.
    """

    def __init__(self, url: str, callers: int = CALLERS, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._url = url
        self._wanted = callers
        self._pause_seconds = pause_seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), name="callers")

    def flood(self, callers: int) -> None:
        """From now on so many, none of which pauses after an answer."""
        self._pause_seconds = 0.0
        self._wanted = callers

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    async def _work(self) -> None:
        async with AsyncDeepfakeClient(
            self._url, max_retries=0, timeout=_DEADLINE_SECONDS, max_connections=2048
        ) as client:
            tasks: list[asyncio.Task[None]] = []
            while not self._end.is_set():
                tasks += [asyncio.create_task(self._call(client)) for _ in range(len(tasks), self._wanted)]
                await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(self, client: AsyncDeepfakeClient) -> None:
        random = np.random.default_rng()
        while True:
            try:
                await client.classify_pixels(random.integers(0, 256, (224, 224, 3), dtype=np.uint8))
                await asyncio.sleep(self._pause_seconds)
            except DeepfakeError:
                await asyncio.sleep(PAUSE_SECONDS)
