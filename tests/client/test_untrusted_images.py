"""Whatever strangers send gets a verdict or a typed error, within bounded memory and time."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from deepfake_client import (
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageLimits,
    ImageReadError,
    ImageTooLargeError,
)
from deepfake_client.preprocessing import load_image, to_pixels
from PIL import Image

from tests.support.hostile_images import (
    bmp_header,
    bmp_of_empty_runs,
    gif,
    gif_with_comments,
    jpeg_of_scans,
    png,
    png_with_text_bomb,
    tiff,
    tiff_of_strips,
    webp,
)
from tests.support.pictures import encoded, photo_like
from tests.support.project import ROOT

MEBI = 1024 * 1024


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x: empty file"),
        (b"hello, world", "x: not an image (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF expected)"),
        (b"\0" * 4096, "x: not an image (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF expected)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x: SVG is not decoded here"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg/>", "x: SVG is not decoded here"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "x: HEIC is not decoded here: convert it to one of JPEG, PNG"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "x: a video is not decoded here"),
        (b"%PDF-1.7\n", "x: PDF is not decoded here"),
        (b"<!DOCTYPE html><title>404</title>", "x: a web page is not decoded here"),
        (b"8BPS\0\1", "x: Photoshop is not decoded here"),
        (b"\xff\x0a\0\0", "x: JPEG XL is not decoded here"),
        (b"P6 1 1 255 abc", "x: not an image"),
        (b"\xff\xd8\xff", "x: damaged JPEG"),
        (b"\x89PNG\r\n\x1a\n", "x: "),
        (b"RIFF\4\0\0\0WEBP", "x: damaged WebP"),
        (b"GIF89a", "x: damaged GIF"),
        (b"BM", "x: "),
        (b"II*\0", "x: damaged TIFF"),
        (b"II+\0\x08\0\0\0" + b"\xff" * 60, "x: damaged TIFF"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "x: truncated AVIF"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_what_is_no_image_is_refused_by_name_and_reason(content: bytes, message: str) -> None:
    file = io.BytesIO(content)
    file.name = "x"
    with pytest.raises(ImageError) as refused:
        load_image(file)
    assert str(refused.value).startswith(message)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_truncated_image_is_refused_by_name(format_name: str, kept: float, tmp_path: Path) -> None:
    content = encoded(photo_like(200, 200, 1), format_name)
    path = tmp_path / "cut.img"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ImageCorruptError, match=r"^\S*cut.img: (truncated|damaged) \w+"):
        load_image(path)


def test_a_truncated_jpeg_is_called_truncated() -> None:
    with pytest.raises(ImageCorruptError, match="truncated JPEG"):
        load_image(encoded(photo_like(200, 200, 1), "JPEG")[:-500])


@pytest.mark.parametrize(
    "content",
    [
        png(60_000, 60_000),
        png(2**31 - 1, 2**31 - 1),
        png(100_000_001, 1),
        gif(65_535, 65_535),
        bmp_header(40_000, -40_000, 0, 24),
        webp(16_383, 16_383),
        tiff([(256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)]),
    ],
    ids=["png", "png 2^31", "png wide", "gif", "bmp", "webp", "tiff"],
)
def test_a_decompression_bomb_is_refused_by_its_header(content: bytes) -> None:
    with pytest.raises(ImageError) as refused:
        load_image(content)
    assert isinstance(refused.value, (ImageTooLargeError, ImageCorruptError))


def test_a_size_within_the_limit_but_over_pillows_own_gets_pixels_and_no_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Pillow's own is 89.5 million pixels: it warns above it, and raises above twice as many.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for height in (30, 60):
        assert to_pixels(load_image(png(50, height, rows=bytes(51 * height)))).max() == 0


def test_a_png_of_sixty_thousand_pixels_width_gets_pixels() -> None:
    assert to_pixels(load_image(png(60_000, 1, rows=bytes(60_001)))).shape == (224, 224, 3)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: png_with_text_bomb(64 * MEBI), ImageError),
        (lambda: bmp_of_empty_runs(16 * MEBI), ImageFormatError),
        (lambda: gif_with_comments(30 * MEBI), ImageFormatError),
        (lambda: tiff_of_strips(2_000_000), ImageFormatError),
        (
            lambda: jpeg_of_scans(encoded(photo_like(2000, 2000, 1, "L"), "JPEG", progressive=True), 1000),
            ImageFormatError,
        ),
    ],
    ids=["png text", "bmp runs", "gif comments", "tiff strips", "jpeg scans"],
)
def test_a_file_made_to_cost_time_ends_soon(make: Callable[[], bytes], error: type[ImageError]) -> None:
    content = make()
    started = time.process_time()
    with pytest.raises(error):
        load_image(content)
    # Not a measurement: without the guards these take minutes to hours.
    assert time.process_time() - started < 60


def test_a_gif_with_a_comment_gets_pixels() -> None:
    assert load_image(gif_with_comments(100_000)).size == (1, 1)


def test_a_photo_with_a_film_behind_it_is_not_taken_for_one_of_many_scans() -> None:
    # Phones append a short film to the JPEG; by chance its bytes hold scan markers by the hundred.
    content = encoded(photo_like(100, 100, 1), "JPEG", progressive=True) + b"\xff\xda\0\0" * 500
    assert load_image(content).size == (100, 100)


def test_a_hostile_image_stays_within_the_memory_that_the_limit_stands_for() -> None:
    code = f"""
import resource, sys, io, zlib
sys.path.insert(0, {str(ROOT)!r})
from tests.support.hostile_images import png
from deepfake_client import ImageLimits
from deepfake_client.preprocessing import load_image, to_pixels
from PIL import Image
content = io.BytesIO()
Image.new("L", (5000, 5000), 7).save(content, "PNG", compress_level=1)
bombs = [png(60_000, 60_000), png(5001, 5000), content.getvalue()]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for bomb in bombs:
    try:
        to_pixels(load_image(bomb, limits=ImageLimits(max_pixels=25_000_000)))
    except Exception as error:
        print(type(error).__name__)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *errors, mebibytes = ran.stdout.split()
    assert errors == ["ImageTooLargeError", "ImageTooLargeError"]
    assert int(mebibytes) < 14 * 25_000_000 / MEBI


def test_more_bytes_than_the_limit_are_refused_after_reading_one_more(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += min(size, 1000)
            return b"x" * min(size, 1000)

    endless = Endless()
    limits = ImageLimits(max_bytes=5500)
    with pytest.raises(ImageTooLargeError, match="5,500 bytes"):
        load_image(endless, limits=limits)
    assert endless.given == 5501
    path = tmp_path / "large"
    path.write_bytes(b"x" * 5501)
    for source in (path, b"x" * 5501, memoryview(bytearray(5501))):
        with pytest.raises(ImageTooLargeError):
            load_image(source, limits=limits)


def test_paths_that_are_no_regular_file_are_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, reason in [
        ("/dev/zero", "not a regular file"),
        (pipe, "not a regular file"),
        (tmp_path, "a folder"),
        (tmp_path / "missing.jpg", "no such file"),
        ("a\0b.jpg", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        ("https://example.org/a.jpg", "fetch it"),
    ]:
        with pytest.raises(ImageReadError, match=reason):
            load_image(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "locked.jpg"
    path.write_bytes(b"")
    path.chmod(0)
    with pytest.raises(ImageReadError, match=r"locked\.jpg: cannot be read: Permission denied"):
        load_image(path)


def test_a_damaged_exif_block_leaves_the_photo_as_it_is() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xee" * 40
    image = load_image(encoded(photo_like(30, 20, 1), "JPEG", exif=exif))
    assert image.size == (30, 20)


def test_an_orientation_that_is_no_orientation_leaves_the_photo_as_it_is() -> None:
    for value in (0, 9, 77):
        exif = Image.Exif()
        exif[0x0112] = value
        assert load_image(encoded(photo_like(30, 20, 1), "JPEG", exif=exif)).size == (30, 20)


def test_pillows_warnings_do_not_leak_and_the_filters_are_left_as_they_were() -> None:
    odd = tiff(
        [
            (256, 4, 1, 4),
            (257, 4, 1, 4),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, 1, 8),
            (279, 4, 1, 16),
            (270, 2, 5000, 90_000),
            (315, 2, 7000, 80_000),
        ]
    )
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with suppress(ImageCorruptError):
            load_image(odd)
        assert warnings.filters == before
    assert leaked == []


def test_globals_of_pillow_are_left_alone() -> None:
    code = """
from PIL import Image, ImageFile
before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
import deepfake_client
assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_refused_images_leave_no_file_open(tmp_path: Path) -> None:
    content = encoded(photo_like(50, 50, 1), "TIFF", compression="tiff_lzw")
    path = tmp_path / "cut.tif"
    before = psutil.Process().num_fds()
    for cut in range(10, len(content), 197):
        path.write_bytes(content[:cut])
        with suppress(ImageError):
            load_image(path)
    assert psutil.Process().num_fds() <= before
