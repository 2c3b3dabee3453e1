"""Counts the scans of a JPEG before it is decoded."""

from __future__ import annotations

import re

# Photos have 1 (baseline) to about 20 (progressive, tuned by mozjpeg). Each scan of a progressive JPEG makes the
# decoder walk over all its pixels, and takes some 150 bytes for a megapixel: 32 MiB hold enough of them to keep a core
# busy for hours. libtiff draws the line for JPEG inside TIFF at the same number.
MAX_SCANS = 100

# In entropy-coded data 0xFF is followed by 0x00 (a stuffed byte), by a restart marker or by a fill byte; anything else
# ends the scan (ITU-T T.81, B.1.1.2).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def count_scans(data: bytes, limit: int = MAX_SCANS) -> int:
    """Scans of the JPEG in `data` up to its end marker; stops counting above `limit`.

    A damaged file is counted as far as it can be followed: what lies behind the damage no decoder reaches either.
    """
    scans, position = 0, 2
    while scans <= limit:
        match = _NEXT_MARKER.search(data, position)
        if match is None:
            break
        marker, position = data[match.end() - 1], match.end()
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        if marker == _START_OF_SCAN:
            scans += 1
        position += int.from_bytes(data[position : position + 2], "big")
    return scans
