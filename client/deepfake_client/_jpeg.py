"""The markers of a JPEG: its scans, and whether one without its end marker holds all pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"
# The other three of these sixteen are tables (DHT, DAC) and JPG, which is reserved.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Huffman-coded DCT. Pillow writes past its buffer where a lossless one, which libjpeg does not scale, is to be scaled.
_SCALABLE = frozenset({0xC0, 0xC1, 0xC2})
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


def segments(data: bytes) -> Iterator[tuple[int, int]]:
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


def scale_down(image: ImageFile, data: bytes, least: int) -> tuple[float, float, float, float] | None:
    """Has libjpeg decode a JPEG at a half, a quarter or an eighth, so that no side is under `least` pixels.

    Returns the box of the picture within it, as the sides are rounded up; None if the image stays as it is.
    """
    if not isinstance(image, JpegImageFile) or min(image.size) < 2 * least:
        return None
    frame = next((marker for marker, _ in segments(data) if marker in _START_OF_FRAME), None)
    if frame not in _SCALABLE:
        return None
    scaled = image.draft(None, (least, least))  # None: in its own colours
    return scaled and scaled[1]


def endings(data: bytes) -> list[bytes] | None:
    """Files that go on where this one stops: none if it lacks a whole scan, None if it has its end or no pixels.

    libjpeg makes up what a scan lacks and only warns. These files go on with different bits, so they give the same
    pixels only if `data` holds all of them.
    """
    if data.endswith(_END_OF_IMAGE):
        return None
    frame, scans = 0, []
    for count, (marker, start) in enumerate(segments(data)):
        if count > _MOST_SEGMENTS:
            return []
        if marker == START_OF_SCAN:
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
