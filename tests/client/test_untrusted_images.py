"""Whatever strangers send gets a verdict or a typed error, within bounded memory and time."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
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
    tiff_of_one_strip,
    tiff_of_strips,
    webp,
)
from tests.support.pictures import EXIF_ORIENTATION, encoded, photo_like, png_16
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


JPEGS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline": ("RGB", {}),
    "optimised": ("RGB", {"optimize": True}),
    "grey": ("L", {}),
    "CMYK": ("CMYK", {}),
    "best quality": ("RGB", {"quality": 100, "subsampling": 0}),
    "restarts": ("RGB", {"restart_marker_blocks": 2}),
    "progressive": ("RGB", {"progressive": True}),
    "progressive, best quality": ("RGB", {"progressive": True, "quality": 100, "subsampling": 0}),
    "progressive grey": ("L", {"progressive": True}),
    "progressive with restarts": ("RGB", {"progressive": True, "restart_marker_rows": 1}),
}


@pytest.mark.parametrize(("mode", "options"), JPEGS.values(), ids=JPEGS)
def test_a_jpeg_without_its_end_marker_gets_the_same_pixels_and_one_that_lacks_more_is_refused(
    mode: str, options: dict[str, object]
) -> None:
    content = encoded(photo_like(77, 53, 1, mode), "JPEG", **options)
    whole = np.asarray(load_image(content))
    for ending in (b"", b"\xff"):
        np.testing.assert_array_equal(np.asarray(load_image(content[:-2] + ending)), whole)
    scan = content.rindex(b"\xff\xda")
    restarts = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", content) if match.start() > scan]
    lengths = [*range(len(content) - 40, len(content) - 2), *range(scan, len(content) - 40, 37), *restarts[-9:]]
    for length in lengths:
        for padding in (b"", bytes(4096)):
            try:
                image = load_image(content[:length] + padding)
            except ImageCorruptError:
                continue
            # No more than the last bits of the last block can be missing without a trace.
            assert len(content) - length < 5
            np.testing.assert_array_equal(np.asarray(image), whole)


def test_a_progressive_jpeg_that_lacks_a_whole_scan_is_refused() -> None:
    content = encoded(photo_like(77, 53, 1), "JPEG", progressive=True)
    scans = [match.start() for match in re.finditer(rb"\xff\xda", content)]
    assert len(scans) == 10
    for start in scans[1:]:
        # The tables before a scan belong to it.
        for end in (start, content.rindex(b"\xff\xc4", 0, start)):
            with pytest.raises(ImageCorruptError, match="truncated JPEG"):
                load_image(content[:end])


@pytest.mark.parametrize(
    ("format_name", "cut"),
    # Of PNG the last chunk and the checksums before it; of GIF the trailer, and the block that ends the frame.
    [("PNG", 12), ("PNG", 20), ("GIF", 1), ("GIF", 2)],
)
def test_what_lacks_no_pixel_gets_the_same_pixels(format_name: str, cut: int) -> None:
    content = encoded(photo_like(77, 53, 1), format_name)
    np.testing.assert_array_equal(np.asarray(load_image(content[:-cut])), np.asarray(load_image(content)))


@pytest.mark.parametrize("format_name", ["WEBP", "TIFF", "AVIF"])
def test_formats_that_say_their_length_at_the_start_are_refused_without_their_last_byte(format_name: str) -> None:
    with pytest.raises(ImageCorruptError):
        load_image(encoded(photo_like(77, 53, 1), format_name)[:-1])


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


@pytest.mark.parametrize(("width", "height"), [(65_536, 1), (1, 65_536)])
def test_a_side_over_65_535_pixels_is_refused_by_the_header_in_every_form(width: int, height: int) -> None:
    size = [(256, 4, 1, width), (257, 4, 1, height)]
    row = Image.new("1", (width, height))
    for image in (
        png(width, height),
        bmp_header(width, height, 0, 24),
        bmp_header(width, -height, 0, 24),
        tiff([*size, (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, 1)]),
        row,
        np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3)),
    ):
        with pytest.raises(ImageTooLargeError, match=rf"{width} × {height}: a side of more than 65,535 pixels"):
            load_image(image)


@pytest.mark.parametrize("size", [(65_535, 1), (1, 65_535)])
def test_a_side_of_65_535_pixels_gets_pixels(size: tuple[int, int]) -> None:
    for format_name in ("PNG", "GIF", "BMP", "TIFF"):
        assert to_pixels(load_image(encoded(Image.new("RGB", size, "white"), format_name))).min() == 255


def test_a_tiff_whose_tile_is_larger_than_an_image_may_be_is_refused() -> None:
    def corner(tile: int) -> bytes:
        size = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
        content = zlib.compress(bytes(tile * tile))
        tiles = [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 122), (325, 4, 1, len(content))]
        return tiff([*size, *tiles], content)

    limits = ImageLimits(max_pixels=100)
    assert load_image(corner(1024), limits=limits).size == (10, 10)
    with pytest.raises(ImageTooLargeError, match="tiles of 1040 × 1040 pixels"):
        load_image(corner(1040), limits=limits)


@pytest.mark.parametrize(
    "content",
    [
        # Twelve bits in the frame header; three floats a pixel; a BMP of JPEG compression.
        encoded(photo_like(9, 9, 1), "JPEG").replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        encoded(photo_like(9, 9, 1), "TIFF", tiffinfo={339: 3}),
        bmp_header(9, 9, 4, 24),
    ],
    ids=["12-bit JPEG", "float TIFF", "BMP of JPEG"],
)
def test_a_variant_that_is_not_decoded_is_not_called_damaged(content: bytes) -> None:
    with pytest.raises(ImageFormatError, match=r"a kind of .* that is not decoded .*: save it as PNG or JPEG"):
        load_image(content)


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


def saved(mode: str, format_name: str, **options: object) -> Callable[[], bytes]:
    """An image of 4000 × 4000 pixels, of a few kilobytes."""
    return lambda: encoded(Image.new(mode, (4000, 4000), 1), format_name, **options)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return exif


LARGE = {
    "16-bit PNG": lambda: png_16(np.zeros((4000, 4000), np.uint16)),
    "16-bit PNG with alpha": lambda: png_16(np.zeros((4000, 4000, 4), np.uint16)),
    "turned PNG with alpha": saved("RGBA", "PNG", exif=turned()),
    "progressive JPEG": saved("CMYK", "JPEG", progressive=True, exif=turned()),
    "JPEG without its end": lambda: saved("RGB", "JPEG", progressive=True, subsampling=0)()[:-2],
    "GIF": saved("P", "GIF", save_all=True, append_images=[Image.new("P", (4000, 4000), 2)], disposal=2),
    "BMP": saved("L", "BMP"),
    "TIFF of one strip": lambda: tiff_of_one_strip(4000),
    "TIFF": saved("CMYK", "TIFF", compression="tiff_lzw", tiffinfo=turned()),
    "WebP": saved("RGBA", "WEBP", lossless=True, method=0, exif=turned()),
    "AVIF": saved("RGBA", "AVIF", speed=10, subsampling="4:4:4", exif=turned()),
    "AVIF with film grain": saved(
        "RGBA", "AVIF", speed=10, subsampling="4:4:4", codec="aom", advanced={"film-grain-test": "1"}
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_an_image_takes_no_more_memory_than_the_limit_stands_for(name: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(LARGE[name]())
    code = f"""
import resource
from deepfake_client.preprocessing import load_image, to_pixels
from PIL import Image
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
to_pixels(load_image(Image.new("L", (1, 1))))
content = open({str(path)!r}, "rb").read()
before = peak()
to_pixels(load_image(content))
print((peak() - before) / 4000**2)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # ImageLimits' docstring; 5 MB for all that does not grow with the image.
    allowed = 18 if "AVIF" in name else 16 if "WebP" in name else 12
    assert float(ran.stdout) < allowed + 5e6 / 4000**2


def test_an_image_over_the_limit_takes_no_memory() -> None:
    code = """
import resource
from tests.support.hostile_images import png, webp
from deepfake_client import ImageTooLargeError
from deepfake_client.preprocessing import load_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for bomb in (png(60_000, 60_000), png(10_001, 10_000), png(1, 100_000_000), webp(16_383, 16_383)):
    try:
        load_image(bomb)
    except ImageTooLargeError:
        print("refused")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    *refused, mebibytes = ran.stdout.split()
    assert refused == ["refused"] * 4
    assert int(mebibytes) < 20


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


def test_pillows_warnings_about_odd_files_are_not_shown() -> None:
    code = """
import sys
from deepfake_client.preprocessing import load_image
load_image(sys.stdin.buffer.read())
"""
    palette = Image.new("P", (4, 4))
    palette.putpalette(bytes(range(12)))
    odd = encoded(palette, "PNG", transparency=bytes([0, 128, 255, 7]))
    shown = subprocess.run([sys.executable, "-c", code], input=odd, capture_output=True, check=True)
    assert (shown.stdout, shown.stderr) == (b"", b"")


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
