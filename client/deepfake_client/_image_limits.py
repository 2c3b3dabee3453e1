"""What is judged before a file is decoded: its size, its parts, and whether a JPEG without its end marker is whole.

Parts can keep a core busy for hours.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice, product

from ._errors import ImageFormatError, ImageTooLargeError

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

# Markers of a JPEG.
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"
# The other three of these sixteen are tables (DHT, DAC) and JPG, which is reserved.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# In entropy-coded data 0xFF is followed by 0x00 (a stuffed byte), by a restart marker or by a fill byte; anything else
# ends the scan (ITU-T T.81, B.1.1.2).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Space that a download left empty. Fewer zeros can be the end of a scan.
_PADDING = bytes(16)
_COEFFICIENTS = 64
# Photos have some dozens. Each takes time in Pillow, once for every file that is tried.
_MOST_SEGMENTS = 10_000
# Groups of one and two bits, their inverse, and a mixture: what Huffman codes and the bits behind them make differ.
# None of their bytes is 0xFF.
_CONTINUATIONS = (b"\xb6\xdb\x6d" * 80, b"\x49\x24\x92" * 80, bytes(71 * i * i % 251 for i in range(240)))


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
    scans = (marker for marker, _ in _segments(data) if marker == _START_OF_SCAN)
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


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker and where its segment starts (two bytes of length, then the content), the end marker as the last.

    A damaged file is followed as far as it goes: what lies behind the damage no decoder reaches either.
    """
    position = 2
    while match := _NEXT_MARKER.search(data, position):
        marker, position = data[match.end() - 1], match.end()
        if marker in _WITHOUT_LENGTH:
            continue
        yield marker, position
        if marker == _END_OF_IMAGE[1]:
            break
        position += int.from_bytes(data[position : position + 2], "big")


def endings(data: bytes) -> list[bytes] | None:
    """Files that go on where this one stops: none if it lacks a whole scan, None if it has its end or no pixels.

    libjpeg makes up what a scan lacks and only warns. These files go on with different bits, so they give the same
    pixels only if `data` holds all of them.
    """
    if data.endswith(_END_OF_IMAGE):
        return None
    frame, scans = 0, []
    for count, (marker, start) in enumerate(_segments(data)):
        if count > _MOST_SEGMENTS:
            return []
        if marker == _START_OF_SCAN:
            scans.append(start)
        elif marker in _START_OF_FRAME and not frame:
            frame = start
    if not frame or not scans or data.find(_END_OF_IMAGE, scans[-1]) >= 0:
        return None
    if data.endswith(_PADDING) or not _all_sent(data, frame, scans):
        return []
    held = data.removesuffix(_END_OF_IMAGE[:1])
    # Decoders look for this marker if the cut was before an interval of restarts.
    restart = bytes([0xFF, 0xD0 + (_last_restart(held, scans[-1]) + 1) % 8])
    return [held + bits + restart + bits + _END_OF_IMAGE for bits in _CONTINUATIONS]


def _last_restart(data: bytes, scan: int) -> int:
    """The number, 0 to 7, of the last restart marker of the scan; 7 if it has none, as 0 comes next."""
    places = [data.rfind(bytes([0xFF, 0xD0 + number]), scan) for number in range(8)]
    return places.index(max(places)) if max(places) >= 0 else 7


def _all_sent(data: bytes, frame: int, scans: list[int]) -> bool:
    """Whether the scans cover every coefficient of every component, to its last bit."""
    sent: set[tuple[int, int]] = set()
    for start in scans:
        parameters = start + 3 + 2 * data[start + 2] if start + 2 < len(data) else len(data)
        if parameters + 3 > len(data):
            return False
        first, last, approximation = data[parameters : parameters + 3]
        if approximation & 0x0F == 0:
            sent.update(product(data[start + 3 : parameters : 2], range(first, last + 1)))
    return len(sent) == _COEFFICIENTS * data[frame + 7]
