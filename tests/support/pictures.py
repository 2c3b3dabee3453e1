"""Pictures as they come in from the world, drawn on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.hostile_images import png_chunk

EXIF_ORIENTATION = 0x0112


def photo_like(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """Soft blotches of colour with some grain: something that scaling and JPEG treat like a photo."""
    random = np.random.default_rng(seed)
    blotches = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    grain = random.normal(0, 6, (height, width, 3))
    pixels = np.asarray(blotches.resize((width, height), Image.Resampling.BICUBIC), np.float64) + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def with_alpha(image: Image.Image) -> Image.Image:
    """The image with a transparent gradient."""
    width, height = image.size
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, width, dtype=np.uint8), (height, 1)))
    image = image.convert("RGB")
    image.putalpha(alpha)
    return image


def save_varied(folder: Path) -> list[Path]:
    """Fifty files: JPEG, PNG (alpha, palette, grey, 1 bit, 16 bit), CMYK, EXIF orientations, 1×1, 4000×3000, …"""
    return [_write(folder / name, content) for name, content in _varied()]


def _varied() -> Iterator[tuple[str, bytes]]:
    for seed in range(8):
        yield (
            f"photo-{seed}.jpg",
            encoded(photo_like(300 + 40 * seed, 500 - 30 * seed, seed), "JPEG", quality=70 + seed),
        )
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        yield f"turned-{orientation}.jpg", encoded(photo_like(200, 320, 20 + orientation), "JPEG", exif=exif)
        if orientation % 2:
            yield f"turned-{orientation}.png", encoded(photo_like(90, 60, 30 + orientation), "PNG", exif=exif)
    for index, (width, height) in enumerate([(1, 1), (1, 500), (500, 1), (2, 3), (224, 224), (223, 225), (4000, 3000)]):
        yield f"size-{width}x{height}.png", encoded(photo_like(width, height, 40 + index), "PNG", compress_level=1)
    yield "large.jpg", encoded(photo_like(4000, 3000, 50), "JPEG")
    for index, mode in enumerate(["L", "1", "P"]):
        yield f"mode-{mode}.png", encoded(photo_like(120, 100, 60 + index, mode), "PNG")
    yield "colour-16.png", png_16(np.random.default_rng(63).integers(0, 65536, (60, 80, 3), dtype=np.uint16))
    for index in range(3):
        yield f"alpha-{index}.png", encoded(with_alpha(photo_like(150, 120 + index, 70 + index)), "PNG")
    yield "grey-alpha.png", encoded(with_alpha(photo_like(99, 77, 75)).convert("LA"), "PNG")
    yield "palette-transparent.png", encoded(photo_like(80, 80, 76, "P"), "PNG", transparency=3)
    for mode in ("L", "CMYK"):
        yield f"{mode.lower()}.jpg", encoded(photo_like(320, 240, 80, mode), "JPEG")
    yield "cmyk.tif", encoded(photo_like(120, 90, 83, "CMYK"), "TIFF")
    yield "deflated.tif", encoded(photo_like(120, 90, 84), "TIFF", compression="tiff_deflate")
    yield "progressive.jpg", encoded(photo_like(400, 300, 85), "JPEG", progressive=True)
    yield "subsampled.jpg", encoded(photo_like(401, 299, 86), "JPEG", subsampling=2)
    yield "lossy.webp", encoded(photo_like(320, 200, 87), "WEBP")
    yield "alpha.webp", encoded(with_alpha(photo_like(100, 100, 88)), "WEBP", lossless=True)
    yield "picture.gif", encoded(photo_like(160, 120, 89), "GIF")
    yield (
        "animated.gif",
        encoded(
            photo_like(64, 64, 90), "GIF", save_all=True, append_images=[photo_like(64, 64, 91), photo_like(64, 64, 92)]
        ),
    )
    yield "one-colour.png", encoded(Image.new("RGB", (300, 200), (12, 200, 99)), "PNG")
    yield "text-chunks.png", encoded(photo_like(70, 70, 94), "PNG", dpi=(300, 300))
    yield "picture.bmp", encoded(photo_like(77, 55, 93), "BMP")


def png_16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits per channel, which Pillow does not write in colour.

    `values` is uint16 of shape (height, width) or (height, width, channels): grey and alpha, RGB, or RGBA.
    """
    height, width, *channels = values.shape
    colour_type = {(): 0, (2,): 4, (3,): 2, (4,): 6}[tuple(channels)]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
