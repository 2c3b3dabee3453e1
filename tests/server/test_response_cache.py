"""The response cache: off unless asked for, and then equal requests are computed once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deepfake_deploy.embedded import EmbeddedTriton

from tests.support.calls import BareClient
from tests.support.metrics import metric, settled
from tests.support.pictures import encoded, photo_like
from tests.support.servers import running


@pytest.fixture(scope="module")
def caching(repository: Path) -> Iterator[EmbeddedTriton]:
    with running(repository, response_cache_bytes=16 << 20) as server:
        yield server


def executions(server: EmbeddedTriton) -> float:
    return metric(server.metrics_url, "nv_inference_exec_count")


def test_without_it_every_request_is_computed(triton: EmbeddedTriton) -> None:
    pixels = np.full((1, 224, 224, 3), 77, np.uint8)
    with BareClient(triton.grpc_url) as client:
        before = executions(triton)
        answers = [client.classify_pixels(pixels) for _ in range(5)]
        assert settled(lambda: executions(triton), before + 5) == before + 5
    assert len({answer.tobytes() for answer in answers}) == 1


@pytest.mark.slow
def test_equal_pixels_are_computed_once_and_others_anew(caching: EmbeddedTriton) -> None:
    first, second = (np.full((1, 224, 224, 3), value, np.uint8) for value in (10, 11))
    with BareClient(caching.grpc_url) as client:
        before = executions(caching)
        answers = [client.classify_pixels(first) for _ in range(5)]
        other = client.classify_pixels(second)
        assert settled(lambda: executions(caching), before + 2) == before + 2
    assert len({answer.tobytes() for answer in answers}) == 1
    assert other.tobytes() != answers[0].tobytes()


@pytest.mark.slow
def test_equal_image_bytes_are_neither_decoded_nor_computed_again(caching: EmbeddedTriton) -> None:
    image = encoded(photo_like(320, 240, 8), "JPEG")
    with BareClient(caching.http_url) as client:
        answers = [client.classify_image(image) for _ in range(5)]
        hits = settled(lambda: metric(caching.metrics_url, "nv_cache_num_hits_per_model", "deepfake_vs_real_image"), 4)
        assert hits == 4
        assert metric(caching.metrics_url, "nv_inference_exec_count", "image_decoder") == 1
    assert len({answer.tobytes() for answer in answers}) == 1
