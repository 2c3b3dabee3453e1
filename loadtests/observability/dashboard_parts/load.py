"""A load of which every panel sees something: pixels and image files, new, repeated and broken ones."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from deepfake_client import DeepfakeClient, DeepfakeError
from PIL import Image

_BROKEN_EVERY = 4
_DEADLINE_SECONDS = 60.0


@contextmanager
def mixed_load(url: str, pause_seconds: float) -> Iterator[None]:
    """One caller, who sends each image twice as pixels and twice as a file, and now and then what is no image.

    Args:
        url: of the server.
        pause_seconds: after each image.
    """
    end = threading.Event()

    def call() -> None:
        with (
            DeepfakeClient(url, timeout=_DEADLINE_SECONDS, max_retries=0) as by_pixels,
            DeepfakeClient(url, timeout=_DEADLINE_SECONDS, max_retries=0, decode="server") as by_image,
        ):
            for number in itertools.count():
                broken = number % _BROKEN_EVERY == _BROKEN_EVERY - 1
                image = b"no image" if broken else _jpeg(number // 2)
                for client in (by_image,) if broken else (by_pixels, by_image):
                    with suppress(DeepfakeError):  # what fails is there to be seen in the metrics
                        client.classify(image)
                if end.wait(pause_seconds):
                    return

    caller = threading.Thread(target=call, name="mixed-load")
    caller.start()
    try:
        yield
    finally:
        end.set()
        caller.join()


def _jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((320, 240)).save(file, "JPEG")
    return file.getvalue()
