"""Small pictures to show beside the verdicts."""

from __future__ import annotations

import base64
from io import BytesIO

from PIL import Image

# Twice the size at which it is shown, for screens of double density.
_MAX_SIDE = 360


def thumbnail(image: Image.Image) -> bytes:
    """A JPEG of at most 360 × 360 pixels, some 10 to 20 KB, without metadata; `image` is RGB and stays as it is."""
    small = image.copy() if max(image.size) <= _MAX_SIDE else _reduced(image)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def data_url(content: bytes, kind: str) -> str:
    """`content` as an address that holds it, so that the page can show it without the server keeping it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _reduced(image: Image.Image) -> Image.Image:
    scale = _MAX_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
