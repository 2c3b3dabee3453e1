"""Memory of one process that classifies many images from a generator, against a running server.

    python -m loadtests.studies.client_memory [--url grpc://127.0.0.1:8001] [--images 20000]

Each image is a JPEG of its own, made when it is asked for. Prints the resident memory at the start, in the middle and at
the end, for the sync and the async client.
"""

from __future__ import annotations

import argparse
import asyncio
import io
from collections.abc import Iterator

import numpy as np
import psutil
from deepfake_client import AsyncDeepfakeClient, DeepfakeClient, Failure, Verdict
from PIL import Image

SIDE = 96


class Record:
    """Counts results, and reads the memory after the first hundred, at half and at the end."""

    def __init__(self, images: int) -> None:
        self._marks = {100: "start", images // 2: "middle", images: "end"}
        self._count = 0
        self._failed = 0
        self._memory: dict[str, float] = {}

    def add(self, result: Verdict | Failure) -> None:
        """Count a result."""
        self._count += 1
        self._failed += not result.ok
        if self._count in self._marks:
            self._memory[self._marks[self._count]] = psutil.Process().memory_info().rss / 2**20

    def summary(self, name: str) -> str:
        """One line."""
        memory = ", ".join(f"{mark} {mib:.1f} MiB" for mark, mib in self._memory.items())
        return f"{name}: {self._count} images, {self._failed} without a verdict; resident at the {memory}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="grpc://127.0.0.1:8001")
    parser.add_argument("--images", type=int, default=20_000)
    options = parser.parse_args()
    print(_sync(options.url, options.images), flush=True)
    print(asyncio.run(_async(options.url, options.images)), flush=True)


def _sync(url: str, images: int) -> str:
    record = Record(images)
    with DeepfakeClient(url) as client:
        for result in client.classify_many(_images(images), concurrency=16):
            record.add(result)
    return record.summary(f"sync, {url.split(':')[0]}")


async def _async(url: str, images: int) -> str:
    record = Record(images)
    async with AsyncDeepfakeClient(url) as client:
        async for result in client.classify_many(_images(images), concurrency=16):
            record.add(result)
    return record.summary(f"async, {url.split(':')[0]}")


def _images(count: int) -> Iterator[bytes]:
    random = np.random.default_rng(0)
    for _ in range(count):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(buffer, "JPEG")
        yield buffer.getvalue()


if __name__ == "__main__":
    main()
