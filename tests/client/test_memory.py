"""A stream of any length takes the memory of a few images."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.pictures import encoded, photo_like
from tests.support.variants import AnyClient

IMAGES = 20_000
MEBI = 1024 * 1024


def _small_images(count: int) -> Iterator[bytes]:
    contents = [encoded(photo_like(32, 32, seed), "PNG") for seed in range(10)]
    for index in range(count):
        yield contents[index % 10] + bytes(8)  # a new object each time


def _resident(results: Iterator[object]) -> tuple[int, list[int]]:
    """How many results there are, and the resident memory in MiB at a tenth, the middle and the end."""
    process, readings, count = psutil.Process(), [], 0
    for result in results:
        assert getattr(result, "ok", False), result
        count += 1
        if count in (IMAGES // 10, IMAGES // 2, IMAGES):
            readings.append(process.memory_info().rss // MEBI)
    return count, readings


@pytest.mark.slow
def test_memory_stays_flat_over_twenty_thousand_images(
    make_client: Callable[..., AnyClient], fake: Callable[..., object], record_property: Callable[[str, object], None]
) -> None:
    transport = fake()
    transport.requests = _Forgetful()  # type: ignore[attr-defined]
    client = make_client(transport=transport)
    count, readings = _resident(client.classify_many(_small_images(IMAGES), concurrency=8))
    record_property("resident_mib", readings)
    assert count == IMAGES
    assert max(readings) - readings[0] < 20, readings


class _Forgetful(list):  # type: ignore[type-arg]
    def append(self, request: object) -> None:
        """Keeps nothing, since the requests hold their images."""


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_memory_stays_flat_over_the_network_too(
    make_client: Callable[..., AnyClient], triton: EmbeddedTriton, protocol: str
) -> None:
    client = make_client(triton.grpc_url if protocol == "grpc" else triton.http_url)
    pixels, process, readings = np.zeros((224, 224, 3), np.uint8), psutil.Process(), []
    for _ in range(3):
        assert all(result.ok for result in client.classify_many([pixels] * 150, concurrency=16))
        readings.append(process.memory_info().rss // MEBI)
    assert readings[2] - readings[1] < 20, readings
