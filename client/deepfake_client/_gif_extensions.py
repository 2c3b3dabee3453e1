"""Measures what stands before the first frame of a GIF, before it is opened."""

from __future__ import annotations

# Comments and metadata. Pillow up to 12.3 puts comments together in a way that takes a minute for 30 MiB of them; it
# refuses as much text in a PNG.
MAX_EXTENSION_BYTES = 1024 * 1024

_EXTENSION = 0x21


def extension_bytes(data: bytes, limit: int = MAX_EXTENSION_BYTES) -> int:
    """Bytes of the extension blocks before the first frame in `data`; stops counting above `limit`."""
    flags = data[10] if len(data) > 10 else 0
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    total = 0
    while total <= limit and data[position : position + 1] == bytes([_EXTENSION]):
        position += 2
        while total <= limit and position < len(data):
            size = data[position]
            position += size + 1
            total += size + 1
            if size == 0:
                break
    return total
