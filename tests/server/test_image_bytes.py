"""Image bytes in, scores out: the ensemble does what the client does, to the bit."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from deepfake_client.preprocessing import load_image, to_pixels
from deepfake_deploy.embedded import EmbeddedTriton, EmbeddedTritonError
from tritonclient.utils import InferenceServerException

from tests.support.calls import BareClient
from tests.support.pictures import encoded, photo_like, save_varied, with_alpha
from tests.support.servers import running

MODES = ("RGB", "L", "CMYK", "RGBA", "P")


def varied_bytes(folder: Path) -> list[bytes]:
    """Two hundred images of different formats, modes and sizes."""
    images = [path.read_bytes() for path in save_varied(folder)]
    for seed in range(200 - len(images)):
        width, height = 40 + 7 * seed % 400, 30 + 13 * seed % 300
        mode = MODES[seed % len(MODES)]
        image = photo_like(width, height, 500 + seed)
        image = with_alpha(image) if mode == "RGBA" else image.convert(mode)
        format_name = {"RGB": ("JPEG", "WEBP", "BMP")[seed % 3], "CMYK": "TIFF", "L": "JPEG"}.get(mode, "PNG")
        images.append(encoded(image, format_name))
    return images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return varied_bytes(tmp_path_factory.mktemp("varied"))


@pytest.mark.slow
def test_two_hundred_varied_images_become_the_same_pixels_and_the_same_scores(
    triton: EmbeddedTriton, images: list[bytes]
) -> None:
    assert len(set(images)) == 200
    with BareClient(triton.grpc_url) as grpc, BareClient(triton.http_url) as http, ThreadPoolExecutor(8) as callers:
        decoded = list(
            callers.map(lambda image: grpc.infer("image_decoder", grpc.image(image), ("pixels",))[0], images)
        )
        scores = list(callers.map(grpc.classify_image, images))
        over_http = [http.classify_image(image) for image in images]  # its client is not thread-safe
        pixels = [to_pixels(load_image(image)) for image in images]
        expected = list(callers.map(lambda array: grpc.classify_pixels(array[None]), pixels))
    for index in range(200):
        assert decoded[index].dtype == np.uint8
        np.testing.assert_array_equal(decoded[index][0], pixels[index])
        # The scores are those of equal pixels, but for the rounding of matrix products in batches of other sizes.
        np.testing.assert_allclose(scores[index], expected[index], atol=1e-6, rtol=0)
        np.testing.assert_allclose(over_http[index], expected[index], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "empty file"),
        (b"this is no image", "not an image"),
        (encoded(photo_like(300, 300, 1), "JPEG")[:4000], "truncated JPEG"),
        (encoded(photo_like(300, 300, 1), "PNG")[:-2000], "PNG"),
    ],
)
def test_a_broken_image_is_the_callers_fault_and_says_why(url: str, image: bytes, reason: str) -> None:
    with BareClient(url) as client, pytest.raises(InferenceServerException, match=reason) as refused:
        client.classify_image(image)
    assert refused.value.status() in ("StatusCode.INVALID_ARGUMENT", "400")


def test_a_broken_image_fails_alone_among_those_that_came_with_it(triton: EmbeddedTriton) -> None:
    good = [encoded(photo_like(120, 90, seed), "JPEG") for seed in range(24)]
    images = [b"broken" if index % 4 == 0 else image for index, image in enumerate(good)]

    def call(image: bytes) -> np.ndarray | str:
        try:
            return client.classify_image(image)
        except InferenceServerException as error:
            return str(error.status())

    with BareClient(triton.grpc_url) as client, ThreadPoolExecutor(24) as callers:
        answers = list(callers.map(call, images))
        expected = [client.classify_image(image) for image in good]
    for index, answer in enumerate(answers):
        if index % 4 == 0:
            assert answer == "StatusCode.INVALID_ARGUMENT"
        else:
            np.testing.assert_allclose(answer, expected[index], atol=1e-6, rtol=0)


def test_several_images_in_one_request(url: str) -> None:
    images = [encoded(photo_like(100 + seed, 80, seed), "PNG") for seed in range(5)]
    with BareClient(url) as client:
        together = client.classify_image(*images)
        alone = np.concatenate([client.classify_image(image) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("model", ["image_decoder", "deepfake_vs_real_image"])
def test_a_broken_image_among_several_in_one_request_is_named(url: str, model: str) -> None:
    images = [encoded(photo_like(100 + seed, 80, seed), "JPEG") for seed in range(8)]
    output = "pixels" if model == "image_decoder" else "probabilities"
    with BareClient(url) as client:
        for broken, content, text in [
            (0, b"", r"\[ImageFormatError\] image 1 of 8: empty file"),
            (2, images[2][:-500], r"\[ImageCorruptError\] image 3 of 8: truncated JPEG: the file ends before"),
            (7, b"text", r"\[ImageFormatError\] image 8 of 8: not an image"),
        ]:
            sent = [content if index == broken else image for index, image in enumerate(images)]
            with pytest.raises(InferenceServerException, match=text) as refused:
                client.infer(model, client.image(*sent), (output,))
            assert refused.value.status() in ("StatusCode.INVALID_ARGUMENT", "400")
        with pytest.raises(InferenceServerException, match=r"\[ImageFormatError\] empty file"):
            client.infer(model, client.image(b""), (output,))


def test_a_request_of_several_with_a_broken_one_fails_alone(triton: EmbeddedTriton) -> None:
    good = encoded(photo_like(120, 90, 1), "JPEG")
    requests = [[good, b"text", good] if index % 3 == 0 else [good, good] for index in range(12)]

    def call(images: list[bytes]) -> tuple[int, ...] | str:
        try:
            return client.classify_image(*images).shape
        except InferenceServerException as error:
            return str(error.message())

    with BareClient(triton.grpc_url) as client, ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(call, requests))
    for index, answer in enumerate(answers):
        if index % 3 == 0:
            assert "image 2 of 3: not an image" in answer
        else:
            assert answer == (2, 2)


def test_an_image_over_the_limit_of_pixels_is_refused_by_its_header(triton: EmbeddedTriton) -> None:
    # 30,000 × 30,000 pixels in 900 KB: 2.7 GB once decoded.
    from PIL import Image

    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    with BareClient(triton.grpc_url) as client, pytest.raises(InferenceServerException, match="pixels") as refused:
        client.classify_image(bomb)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


def decoding(repository: Path, target: Path, value: str) -> Path:
    """A copy of the decoder alone, with another value of its parameter `decoding`."""
    folder = shutil.copytree(repository / "image_decoder", target / "image_decoder")
    for path in folder.glob("**/*.pbtxt"):
        text = path.read_text()
        assert text.count('string_value: "exact"') == 1
        path.write_text(text.replace('string_value: "exact"', f'string_value: "{value}"'))
    return target


@pytest.mark.slow
def test_a_decoder_told_to_be_fast_makes_the_pixels_of_a_client_that_is(repository: Path, tmp_path: Path) -> None:
    photos = [encoded(photo_like(*size, 5), "JPEG") for size in ((1500, 1203), (640, 480))]
    with running(decoding(repository, tmp_path, "fast")) as server, BareClient(server.grpc_url) as client:
        decoded = [client.infer("image_decoder", client.image(photo), ("pixels",))[0][0] for photo in photos]
    for pixels, photo in zip(decoded, photos, strict=True):
        np.testing.assert_array_equal(pixels, to_pixels(load_image(photo, decoding="fast")))
    assert not np.array_equal(decoded[0], to_pixels(load_image(photos[0])))


@pytest.mark.slow
def test_a_decoder_told_anything_else_does_not_load_and_says_why(repository: Path, tmp_path: Path) -> None:
    told = r"image_decoder.*decoding must be 'exact' or 'fast', not 'quick'"
    with pytest.raises(EmbeddedTritonError, match=told), running(decoding(repository, tmp_path, "quick")):
        pass
