"""`decode="server"`: the same verdicts and the same errors, with the bytes of the image on the wire."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepfake_client import (
    DeepfakeError,
    Failure,
    FakeTransport,
    ImageError,
    ImageLimits,
    InvalidArgumentError,
    RequestOutcome,
    Verdict,
)
from deepfake_client.preprocessing import Pixels
from PIL import Image

from tests.support.pictures import encoded, photo_like, save_varied
from tests.support.variants import AnyClient

MakeClient = Callable[..., AnyClient]


@pytest.fixture
def both(make_client: MakeClient, url: str) -> tuple[AnyClient, AnyClient]:
    """A client that decodes and one that leaves it to the server."""
    return make_client(url), make_client(url, decode="server")


@pytest.mark.slow
def test_varied_files_get_the_same_verdicts_either_way(both: tuple[AnyClient, AnyClient], tmp_path: Path) -> None:
    files = save_varied(tmp_path)
    here, there = (list(client.classify_many(files)) for client in both)
    for one, other in zip(here, there, strict=True):
        assert isinstance(one, Verdict), one
        assert isinstance(other, Verdict), other
        assert (one.source, one.label, list(one.scores)) == (other.source, other.label, list(other.scores))
        np.testing.assert_allclose(list(one.scores.values()), list(other.scores.values()), atol=1e-6, rtol=0)
        assert (one.model, other.model) == ("deepfake_vs_real", "deepfake_vs_real_image")


def test_images_of_every_kind_get_the_same_scores_either_way(both: tuple[AnyClient, AnyClient], tmp_path: Path) -> None:
    picture = photo_like(200, 150, 3)
    content = encoded(picture, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    for image in (path, str(path), content, bytearray(content), picture, np.asarray(picture)):
        one, other = (client.classify(image) for client in both)
        np.testing.assert_allclose(list(one.scores.values()), list(other.scores.values()), atol=1e-6, rtol=0)
    one, other = (client.classify(io.BytesIO(content)) for client in both)
    np.testing.assert_allclose(list(one.scores.values()), list(other.scores.values()), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"this is no image",
        encoded(photo_like(300, 300, 1), "JPEG")[:4000],
        encoded(photo_like(300, 300, 1), "PNG")[:-3000],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
    ids=["empty", "text", "truncated JPEG", "truncated PNG", "SVG"],
)
def test_a_broken_image_is_the_same_error_either_way(both: tuple[AnyClient, AnyClient], content: bytes) -> None:
    errors = []
    for client in both:
        with pytest.raises(ImageError) as caught:
            client.classify(content, source="upload")
        errors.append(caught.value)
    assert type(errors[0]) is type(errors[1])
    assert errors[0].reason == errors[1].reason
    assert errors[0].source == errors[1].source == "upload"


def test_a_broken_image_keeps_its_place_among_the_others(both: tuple[AnyClient, AnyClient]) -> None:
    images = [encoded(photo_like(64, 64, 1), "JPEG"), b"broken", encoded(photo_like(64, 64, 2), "PNG")]
    for client in both:
        results = list(client.classify_many(images))
        assert [type(result) for result in results] == [Verdict, Failure, Verdict]


def test_more_bytes_than_the_limit_are_not_sent(make_client: MakeClient, url: str) -> None:
    outcomes: list[RequestOutcome] = []
    client = make_client(url, decode="server", limits=ImageLimits(max_bytes=1000), on_request=outcomes.append)
    with pytest.raises(ImageError, match="1,000 bytes"):
        client.classify(encoded(photo_like(300, 300, 1), "PNG"))
    assert outcomes == []


def test_the_image_itself_travels(make_client: MakeClient, url: str) -> None:
    outcomes: list[RequestOutcome] = []
    client = make_client(url, decode="server", on_request=outcomes.append)
    content = encoded(photo_like(40, 40, 1), "JPEG")
    client.classify(content)
    assert min(outcome.bytes_sent for outcome in outcomes if outcome.images) < 1000 + len(content)


def test_pixels_need_a_client_that_decodes(make_client: MakeClient, fake: Callable[..., Any], pixels: Pixels) -> None:
    client = make_client(transport=fake(), decode="server")
    with pytest.raises(InvalidArgumentError, match="decode='client'"):
        client.classify_pixels(pixels)
    with pytest.raises(InvalidArgumentError, match="decode='client'"):
        client.classify_batch(pixels[None])


def test_the_model_says_that_it_takes_bytes(make_client: MakeClient, url: str) -> None:
    info = make_client(url, decode="server").model_info()
    assert (info.name, info.input_shape, info.input_datatype) == ("deepfake_vs_real_image", (1,), "BYTES")
    assert info.labels == ("Deepfake", "Real one")


def test_a_fake_server_decodes_too(make_client: MakeClient, fake: Callable[..., Any]) -> None:
    transport: FakeTransport = fake(probabilities=lambda row: (1.0, 0.0) if row.mean() < 128 else (0.0, 1.0))
    client = make_client(transport=transport, decode="server")
    assert client.classify(np.zeros((10, 10, 3), np.uint8)).label == "Deepfake"
    assert client.classify(np.full((10, 10, 3), 255, np.uint8)).label == "Real one"
    assert transport.requests[0].inputs["image"].datatype == "BYTES"


@pytest.mark.parametrize("decode", ["Server", "", None, 1])
def test_another_word_is_refused(make_client: MakeClient, fake: Callable[..., Any], decode: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="decode must be 'client' or 'server'"):
        make_client(transport=fake(), decode=decode)


@pytest.mark.parametrize(("priority", "level"), [(None, 0), ("interactive", 1), ("bulk", 2)])
def test_a_priority_becomes_a_level_of_the_queue(
    make_client: MakeClient, fake: Callable[..., Any], pixels: Pixels, priority: Any, level: int
) -> None:
    transport: FakeTransport = fake()
    client = make_client(transport=transport)
    client.classify_pixels(pixels, priority=priority)
    client.classify_batch(pixels[None], priority=priority)
    client.classify(pixels, priority=priority)
    list(client.classify_many([pixels], priority=priority))
    assert [request.priority for request in transport.requests] == [level] * 4


def test_another_priority_is_refused_at_once(make_client: MakeClient, fake: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="priority must be 'interactive' or 'bulk'"):
        make_client(transport=fake()).classify_many([], priority="urgent")


def test_a_bulk_run_is_answered(make_client: MakeClient, url: str) -> None:
    images = [photo_like(64, 64, seed) for seed in range(20)]
    results = list(make_client(url).classify_many(images, priority="bulk"))
    assert all(isinstance(result, Verdict) for result in results)
    assert not any(isinstance(result, DeepfakeError) for result in results)


@pytest.mark.parametrize("decode", ["client", "server"])
def test_an_image_without_pixels_is_refused(make_client: MakeClient, fake: Callable[..., Any], decode: str) -> None:
    client = make_client(transport=fake(), decode=decode)
    with pytest.raises(ImageError, match="no pixels"):
        client.classify(Image.new("RGB", (0, 10)))


def test_a_large_picture_in_memory_is_sent_at_the_models_size(make_client: MakeClient, url: str) -> None:
    outcomes: list[RequestOutcome] = []
    picture = photo_like(2000, 1500, 5)
    there = make_client(url, decode="server", on_request=outcomes.append).classify(picture)
    here = make_client(url).classify(picture)
    np.testing.assert_allclose(list(there.scores.values()), list(here.scores.values()), atol=1e-6, rtol=0)
    assert max(outcome.bytes_sent for outcome in outcomes) < 200_000
