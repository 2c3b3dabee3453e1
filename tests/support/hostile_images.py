"""Files made to cost whoever opens them time or memory."""

from __future__ import annotations

import itertools
import re
import struct
import zlib


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, rows: bytes | None = None, extra: bytes = b"") -> bytes:
    """A grey PNG whose header says `width` × `height`, whatever its data holds."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = zlib.compress(bytes(1000) if rows is None else rows, 9)
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def png_with_text_bomb(size: int) -> bytes:
    """64 × 64, with a compressed comment that unfolds to `size` bytes."""
    return png(64, 64, rows=bytes(65 * 64), extra=png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(size), 9)))


def bmp_header(width: int, height: int, compression: int, bits: int) -> bytes:
    palette = bytes(4 * 256) if bits == 8 else b""
    offset = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", offset, 0, 0, offset) + info + palette


def bmp_of_empty_runs(size: int) -> bytes:
    """A run-length-encoded BMP of which each two bytes cost a step and give no pixel."""
    return bmp_header(5000, 5000, 1, 8) + b"\x00\x00" * (size // 2)


def gif(width: int, height: int) -> bytes:
    """A GIF that announces a canvas of `width` × `height` and holds one pixel."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"


def gif_with_comments(size: int) -> bytes:
    """A GIF with `size` bytes of comments before its one pixel."""
    block = b"\xff" + b"c" * 255
    start = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    return (
        start
        + b"!\xfe"
        + block * (size // 256)
        + b"\0"
        + b","
        + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
        + b"\2\2\x44\1\0;"
    )


def tiff(entries: list[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """A TIFF of one directory: (tag, type, count, value or offset); `tail` begins at offset 8 + 2 + 12 n + 4."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + tail


def tiff_of_strips(strips: int) -> bytes:
    """A TIFF one pixel wide, with a strip of its own for each row, all of them the same byte."""
    start = 8 + 2 + 12 * 8 + 4
    return tiff(
        [
            (256, 4, 1, 1),
            (257, 4, 1, strips),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, strips, start),
            (278, 4, 1, 1),
            (279, 4, strips, start + 4 * strips),
        ],
        struct.pack("<I", 8) * strips + struct.pack("<I", 1) * strips,
    )


def tiff_of_one_strip(side: int) -> bytes:
    """A square TIFF of 16 bits for each of red, green, blue and alpha, deflated as one strip."""
    bits = struct.pack("<4H", *[16] * 4)
    start = 8 + 2 + 12 * 10 + 4
    content = zlib.compress(bytes(side * side * 8), 1)
    size = [(256, 4, 1, side), (257, 4, 1, side), (278, 4, 1, side)]
    kind = [(258, 3, 4, start), (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, 4), (338, 3, 1, 2)]
    return tiff([*size, *kind, (273, 4, 1, start + 8), (279, 4, 1, len(content))], bits + content)


def webp(width: int, height: int) -> bytes:
    """A lossless WebP whose header says `width` × `height` and which has no pixels."""
    size = struct.pack("<I", (width - 1) | ((height - 1) << 14))
    data = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + size + bytes(5)
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data


def jpeg_of_scans(progressive: bytes, scans: int) -> bytes:
    """A progressive JPEG with its shortest scan repeated `scans` times: each costs a pass over all pixels."""
    starts = [match.start() for match in re.finditer(rb"\xff\xda", progressive)] + [len(progressive) - 2]
    begin, end = min(itertools.pairwise(starts), key=lambda span: span[1] - span[0])
    return progressive[:end] + progressive[begin:end] * scans + progressive[end:]


def lossless_jpeg(width: int, height: int) -> bytes:
    """A grey JPEG of the lossless kind (SOF3), which libjpeg decodes but never scales down."""
    frame = struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)
    one_code = bytes([0, 1]) + bytes(15) + b"\0"  # "no difference", which is the bit 0
    scan = bytes([1, 1, 0, 1, 0, 0])  # each pixel is predicted by the one before it
    parts = ((0xC3, frame), (0xC4, one_code), (0xDA, scan))
    header = b"".join(struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part for marker, part in parts)
    return b"\xff\xd8" + header + bytes((width * height + 7) // 8) + b"\xff\xd9"
