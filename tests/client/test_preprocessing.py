"""The pixels are, bit for bit, those that transformers makes for this checkpoint, but for grey of more than 8 bits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from deepfake_client import ImageFormatError, ImageReadError, ImageTooLargeError, InvalidArgumentError
from deepfake_client.preprocessing import ImageLimits, load_image, to_pixels
from PIL import Image

from tests.support.hostile_images import tiff
from tests.support.pictures import EXIF_ORIENTATION, encoded, photo_like, png_16, save_varied, with_alpha


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [*save_varied(tmp_path_factory.mktemp("varied")), *_more(tmp_path_factory.mktemp("more"))]


def _more(folder: Path) -> list[Path]:
    """Formats and modes beyond those of `pictures`."""
    files = {
        "picture.avif": encoded(photo_like(120, 80, 1), "AVIF"),
        "picture.mpo": encoded(photo_like(100, 70, 2), "MPO", save_all=True, append_images=[photo_like(100, 70, 3)]),
        "animated.webp": encoded(photo_like(64, 48, 4), "WEBP", save_all=True, append_images=[photo_like(64, 48, 5)]),
        "animated.png": encoded(photo_like(64, 48, 6), "PNG", save_all=True, append_images=[photo_like(64, 48, 7)]),
        "lab.tif": encoded(photo_like(60, 40, 8).convert("LAB"), "TIFF"),
        "palette-alpha.png": encoded(
            with_alpha(photo_like(50, 50, 9)).quantize(64, method=Image.Quantize.FASTOCTREE), "PNG"
        ),
        "key-colour.png": encoded(photo_like(40, 40, 10), "PNG", transparency=(10, 20, 30)),
        "profile.jpg": encoded(photo_like(90, 60, 11), "JPEG", icc_profile=_swapped_profile()),
        "lzw.tif": encoded(photo_like(90, 60, 12), "TIFF", compression="tiff_lzw"),
        "grey.bmp": encoded(photo_like(33, 21, 13, "L"), "BMP"),
    }
    turned = Image.Exif()
    turned[EXIF_ORIENTATION] = 6
    for format_name in ("TIFF", "WEBP", "AVIF", "PNG"):
        files[f"turned.{format_name.lower()}"] = encoded(photo_like(90, 60, 14), format_name, exif=turned)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def _swapped_profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.fixture(scope="module")
def pixels_of_transformers() -> Callable[[Path], np.ndarray]:
    image_utils = pytest.importorskip("transformers.image_utils", reason="transformers is not installed")
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil(resample=2, do_rescale=False, do_normalize=False)

    def pixels(path: Path) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of palettes with transparency
            values = processor(image_utils.load_image(str(path)), return_tensors="np")["pixel_values"][0]
        return np.moveaxis(values, 0, -1)

    return pixels


def test_pixels_equal_those_of_transformers_to_the_bit(
    varied: list[Path], pixels_of_transformers: Callable[[Path], np.ndarray]
) -> None:
    for path in varied:
        pixels = to_pixels(load_image(path))
        assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
        np.testing.assert_array_equal(pixels, pixels_of_transformers(path), err_msg=path.name)


GREY_16 = np.arange(4800, dtype=np.uint16).reshape(60, 80) * 13


def colours(image: object) -> np.ndarray:
    return np.asarray(load_image(image))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image",
    [
        png_16(GREY_16),
        png_16(np.stack([GREY_16, GREY_16[::-1]], axis=-1)),
        encoded(Image.fromarray(GREY_16), "PNG", transparency=26),
        encoded(Image.fromarray(GREY_16), "TIFF"),
        encoded(Image.fromarray(GREY_16), "TIFF", compression="tiff_lzw"),
        encoded(Image.fromarray(~GREY_16), "TIFF", tiffinfo={262: 0}),
        encoded(Image.fromarray(~GREY_16), "TIFF", tiffinfo={262: 0}, compression="tiff_deflate"),
        encoded(Image.frombytes("I;16B", (80, 60), GREY_16.astype(">u2").tobytes()), "TIFF"),
        Image.open(io.BytesIO(png_16(GREY_16))),
        Image.frombytes("I;16", (80, 60), GREY_16.astype("<u2").tobytes()),
        Image.frombytes("I;16L", (80, 60), GREY_16.astype("<u2").tobytes()),
        Image.frombytes("I;16B", (80, 60), GREY_16.astype(">u2").tobytes()),
        Image.frombytes("I;16N", (80, 60), GREY_16.tobytes()),
    ],
    ids=[
        *("PNG", "PNG with alpha", "PNG with a transparent grey", "TIFF", "LZW", "white is 0", "deflated, white is 0"),
        *("big-endian TIFF", "opened", "I;16", "I;16L", "I;16B", "I;16N"),
    ],
)
def test_sixteen_bit_grey_equals_the_same_picture_in_sixteen_bit_colour(image: object) -> None:
    expected = colours(png_16(np.stack([GREY_16] * 3, axis=-1)))
    assert len(np.unique(expected)) > 200
    np.testing.assert_array_equal(colours(image), expected)


def test_sixteen_bit_grey_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    turned = colours(encoded(Image.fromarray(GREY_16), "PNG", exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(colours(png_16(GREY_16)), -1))


def test_twelve_bit_grey_is_scaled_by_its_own_range() -> None:
    # Two pixels in three bytes: 0xFFF and 0x800.
    content = tiff(
        [
            (256, 4, 1, 2),
            (257, 4, 1, 1),
            (258, 3, 1, 12),
            (262, 3, 1, 1),
            (273, 4, 1, 98),
            (278, 4, 1, 1),
            (279, 4, 1, 3),
        ],
        b"\xff\xf8\x00",
    )
    assert colours(content)[0, :, 0].tolist() == [0xFF, 0x80]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_and_palettes_of_up_to_eight_bits_keep_their_range(bits: int) -> None:
    steps = 2**bits
    palette = Image.frombytes("P", (steps, 1), bytes(range(steps)))
    palette.putpalette(np.repeat(np.linspace(0, 255, steps).astype(np.uint8), 3).tobytes())
    assert colours(encoded(palette, "PNG", bits=bits))[0, [0, -1]].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize(
    "image",
    [
        Image.new("I", (4, 4)),
        Image.new("F", (4, 4)),
        encoded(Image.new("I", (4, 4)), "TIFF"),
        encoded(Image.new("F", (4, 4)), "TIFF", compression="tiff_deflate"),
        encoded(Image.fromarray(GREY_16), "TIFF", tiffinfo={339: 2}),
    ],
    ids=["int", "float", "int TIFF", "float TIFF", "signed 16-bit TIFF"],
)
def test_pixels_of_no_stated_range_are_refused_with_the_way_out(image: object) -> None:
    with pytest.raises(ImageFormatError, match="scale them to 0…255 and save 8 bits per channel"):
        load_image(image)  # type: ignore[arg-type]


def test_every_form_of_an_image_gives_the_same_pixels(tmp_path: Path) -> None:
    content = encoded(photo_like(300, 200, 1), "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    expected = to_pixels(load_image(path))
    with path.open("rb") as file, path.open("rb", buffering=0) as unbuffered:
        forms = [
            str(path),
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            file,
            unbuffered,
            Image.open(io.BytesIO(content)),
            np.asarray(photo_like(300, 200, 1)),
            np.asarray(photo_like(300, 200, 1))[::-1][::-1],
        ]
        for form in forms:
            np.testing.assert_array_equal(to_pixels(load_image(form)), expected)
        assert not file.closed


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_image_that_was_turned_is_not_turned_again(orientation: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    upright = load_image(encoded(photo_like(30, 20, 1), "JPEG", exif=exif))
    again = load_image(upright)
    assert again.size == upright.size
    np.testing.assert_array_equal(np.asarray(again), np.asarray(upright))


def test_the_callers_image_is_left_as_it_is() -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    image = Image.open(io.BytesIO(encoded(photo_like(30, 20, 1, "L"), "JPEG", exif=exif)))
    upright = load_image(image)
    assert (upright.mode, upright.size) == ("RGB", (20, 30))
    assert (image.mode, image.size) == ("L", (30, 20))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((3, 5, 5), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_of_another_kind_is_refused_not_guessed(array: np.ndarray) -> None:
    with pytest.raises(InvalidArgumentError, match="uint8 of shape"):
        load_image(array)


def test_a_text_file_object_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'rb'"):
        load_image(io.StringIO("text"))


@pytest.mark.parametrize("source", [3, None, ["a.jpg"], {"a": 1}], ids=repr)
def test_anything_else_is_refused(source: object) -> None:
    with pytest.raises(InvalidArgumentError, match=type(source).__name__):
        load_image(source)  # type: ignore[arg-type]


def test_a_file_object_that_fails_gives_a_typed_error() -> None:
    class Broken(io.RawIOBase):
        name = "upload"

        def read(self, _size: int = -1) -> bytes:
            raise RuntimeError("connection lost")

    with pytest.raises(ImageReadError, match=r"^upload: cannot be read: connection lost$"):
        load_image(Broken())


def test_limits_hold_for_arrays_and_pil_images_too() -> None:
    limits = ImageLimits(max_pixels=99)
    for image in (Image.new("RGB", (10, 10)), np.zeros((10, 10, 3), np.uint8)):
        with pytest.raises(ImageTooLargeError, match="10 × 10"):
            load_image(image, limits=limits)


def test_limits_must_be_positive() -> None:
    with pytest.raises(InvalidArgumentError):
        ImageLimits(max_bytes=0)
