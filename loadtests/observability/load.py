"""A light load of images that nobody sent before."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
from deepfake_client import DeepfakeClient, DeepfakeError
from PIL import Image

INTERVAL_SECONDS = 0.5
_DEADLINE_SECONDS = 10.0


class Load:
    """Sends an image every half a second, as pixels and as a file in turn, as a context manager.

    Args:
        url: of the server.
        seconds: for how long.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send, name="load")

    @property
    def over(self) -> bool:
        """Whether it has sent its last image."""
        return not self._thread.is_alive()

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _send(self) -> None:
        random = np.random.default_rng()
        deadline = time.monotonic() + self._seconds
        with (
            DeepfakeClient(self._url, timeout=_DEADLINE_SECONDS, max_retries=0) as by_pixels,
            DeepfakeClient(self._url, timeout=_DEADLINE_SECONDS, max_retries=0, decode="server") as by_image,
        ):
            for client in itertools.cycle((by_pixels, by_image)):
                if self._end.wait(INTERVAL_SECONDS) or time.monotonic() > deadline:
                    return
                noise = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                # What fails shows in the metrics, which is what this is for.
                try:
                    client.classify(Image.fromarray(noise).resize((320, 240)))
                except DeepfakeError:
                    continue
