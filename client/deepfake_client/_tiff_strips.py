"""Counts the strips or tiles of a TIFF before it is opened."""

from __future__ import annotations

import struct

# Pillow makes an object for each strip or tile. A photo has at most one for each of its rows; a file of 32 MiB can name
# four million, which takes ten seconds to open and minutes to decode.
MAX_STRIPS = 65_536

_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324


def count_strips(data: bytes) -> int:
    """Strips or tiles of the first image in `data`, 0 where its directory cannot be read."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        if data[2:4] in (b"+\x00", b"\x00+"):  # BigTIFF
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
