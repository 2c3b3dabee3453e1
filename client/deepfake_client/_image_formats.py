"""Which image formats are decoded, how each is recognised, and what the others are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, NamedTuple

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)


class ImageFormat(NamedTuple):
    """A format by the bytes it begins with, and the Pillow class that reads it."""

    name: str
    begins: Callable[[bytes], bool]
    open: Callable[[IO[bytes]], ImageFile.ImageFile]


def _begins_with(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(signatures)


def _is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _brands(head: bytes) -> frozenset[bytes]:
    """The brands that an ISO base media file (AVIF, HEIC, MP4) says it conforms to."""
    if head[4:8] != b"ftyp":
        return frozenset()
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return frozenset({head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))})


def _is_avif(head: bytes) -> bool:
    return bool(_brands(head) & {b"avif", b"avis"})


# The classes are called by themselves, not through Image.open: that one looks at files in some forty formats, some
# of them decoded in Python, and judges sizes by a limit of the whole process. PPM is left out for the former reason;
# a multi-picture JPEG (MPO) is read as the JPEG it begins with, which is its first picture.
FORMATS: list[ImageFormat] = [
    ImageFormat("JPEG", _begins_with(b"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    ImageFormat("PNG", _begins_with(b"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    ImageFormat("GIF", _begins_with(b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ImageFormat("BMP", _begins_with(b"BM"), BmpImagePlugin.BmpImageFile),
    ImageFormat(
        "TIFF",
        _begins_with(b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
        TiffImagePlugin.TiffImageFile,
    ),
]
if features.check("webp"):
    FORMATS.insert(2, ImageFormat("WebP", _is_webp, WebPImagePlugin.WebPImageFile))
if features.check("avif"):
    from PIL import AvifImagePlugin

    FORMATS.append(ImageFormat("AVIF", _is_avif, AvifImagePlugin.AvifImageFile))

NAMES = ", ".join(known.name for known in FORMATS)


def recognise(data: bytes) -> ImageFormat | None:
    """The format whose signature `data` begins with."""
    head = data[:64]
    return next((known for known in FORMATS if known.begins(head)), None)


def name_of_unsupported(data: bytes) -> str | None:
    """What a file that is not decoded seems to be, so that the error can say it."""
    head = data[:512]
    brands = _brands(head)
    if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
        return "HEIC"
    if brands:
        return "AVIF" if _is_avif(head) else "a video"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "SVG"
    signatures = {
        b"%pdf": "PDF",
        b"<!doctype html": "a web page",
        b"<html": "a web page",
    }
    for signature, name in signatures.items():
        if text.startswith(signature):
            return name
    if _is_webp(head):
        return "WebP"
    if head.startswith((b"\x00\x00\x00\x0cJXL ", b"\xff\x0a")):
        return "JPEG XL"
    if head.startswith((b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    return "Photoshop" if head.startswith(b"8BPS") else None
