"""What is judged before a file is decoded: its size, and its parts, which can keep a core busy for hours."""

from __future__ import annotations

import struct
from itertools import islice

from ._errors import ImageFormatError, ImageTooLargeError
from ._jpeg import START_OF_SCAN, segments

# What JPEG and GIF can have at most. Pillow keeps a pointer for each row, and the resize a copy 224 pixels wide.
_MAX_SIDE = 65_535
# libtiff decodes a tile as a whole, also where the image is a corner of it. Small images come in tiles of this size.
_USUAL_TILE_PIXELS = 1024 * 1024
# Photos have 1 scan (baseline) to about 20 (progressive, tuned by mozjpeg). Each scan of a progressive JPEG is a walk
# over all its pixels, and takes some 150 bytes for a megapixel. libtiff draws the line at the same number.
_MAX_JPEG_SCANS = 100
# Pillow makes an object for each strip or tile. A photo has at most one for each of its rows; a file of 32 MiB can
# name four million, which takes ten seconds to open and minutes to decode.
_MAX_TIFF_STRIPS = 65_536
# Pillow before 13 takes minutes to put 30 MiB of comments together. It refuses as much text in a PNG.
_MAX_GIF_EXTENSION_BYTES = 1024 * 1024

_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_GIF_EXTENSION = b"\x21"


def require_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Refuses a `(width, height)` over the limit."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageFormatError(f"no pixels: {width} × {height}")
    if max(width, height) > _MAX_SIDE:
        raise ImageTooLargeError(f"{width} × {height}: a side of more than {_MAX_SIDE:,} pixels")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"{width} × {height} is more than {max_pixels:,} pixels, the limit set by max_pixels")


def require_tile(width: int, height: int, max_pixels: int) -> None:
    """Refuses a TIFF's tile that takes more memory than an image may."""
    if width * height > max(max_pixels, _USUAL_TILE_PIXELS):
        raise ImageTooLargeError(f"a TIFF of tiles of {width} × {height} pixels, over the limit set by max_pixels")


def require_few_parts(format_name: str, data: bytes) -> None:
    """Refuses a JPEG, TIFF or GIF of which the parts outnumber those of any photo.

    A damaged file is counted as far as it can be followed: what lies behind the damage no decoder reaches either.
    """
    if format_name == "JPEG" and _jpeg_scans(data) > _MAX_JPEG_SCANS:
        raise ImageFormatError(f"a JPEG of more than {_MAX_JPEG_SCANS} scans, which no camera or editor writes")
    if format_name == "TIFF" and _tiff_strips(data) > _MAX_TIFF_STRIPS:
        raise ImageFormatError(f"a TIFF cut into more than {_MAX_TIFF_STRIPS:,} strips or tiles")
    if format_name == "GIF" and _gif_extension_bytes(data) > _MAX_GIF_EXTENSION_BYTES:
        raise ImageFormatError(f"a GIF with more than {_MAX_GIF_EXTENSION_BYTES:,} bytes of comments")


def _jpeg_scans(data: bytes) -> int:
    """Scans up to the end marker; stops counting above the limit."""
    scans = (marker for marker, _ in segments(data) if marker == START_OF_SCAN)
    return sum(1 for _ in islice(scans, _MAX_JPEG_SCANS + 1))


def _tiff_strips(data: bytes) -> int:
    """Strips or tiles of the first image, 0 where its directory cannot be read."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        if b"+" in data[2:4]:  # BigTIFF
            (start,) = struct.unpack_from(f"{order}Q", data, 8)
            (entries,) = struct.unpack_from(f"{order}Q", data, start)
            entry, first = struct.Struct(f"{order}HHQ8x"), start + 8
        else:
            (start,) = struct.unpack_from(f"{order}I", data, 4)
            (entries,) = struct.unpack_from(f"{order}H", data, start)
            entry, first = struct.Struct(f"{order}HHI4x"), start + 2
        entries = min(entries, (len(data) - first) // entry.size)
        fields = entry.iter_unpack(data[first : first + entries * entry.size])
        return max((count for tag, _, count in fields if tag in (_STRIP_OFFSETS, _TILE_OFFSETS)), default=0)
    except (struct.error, OverflowError):
        return 0


def _gif_extension_bytes(data: bytes) -> int:
    """Bytes of the extension blocks before the first frame; stops counting above the limit."""
    flags = data[10] if len(data) > 10 else 0
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    total = 0
    while data[position : position + 1] == _GIF_EXTENSION:
        position += 2
        while position < len(data) and total <= _MAX_GIF_EXTENSION_BYTES:
            size = data[position]
            position += size + 1
            total += size + 1
            if size == 0:
                break
        else:
            break
    return total
