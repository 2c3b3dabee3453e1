"""A labelled file on its way to the server: read, hashed and damaged where the client decodes, in its threads."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

from deepfake_client import ImageError, ImageLimits
from deepfake_client._images import read_encoded
from deepfake_client.preprocessing import load_image, to_pixels
from PIL import Image

#: Makes of an upright RGB image what is left of it on its way.
Damaging = Callable[[Image.Image], Image.Image]


class Photo:
    """A binary file for `DeepfakeClient.classify_many`, which holds nothing until it is read.

    Undamaged it gives the file's own bytes. Damaged it gives a PNG of the pixels that the model takes, which neither
    the client nor the server changes any more: small whatever the photo, and encoded in a few milliseconds.

    Attributes:
        name: the path, as errors show it.
        file: path below the evaluated folder.
        digest: SHA-256 of the bytes as they were read, in hexadecimal; None before, and where they cannot be.
    """

    def __init__(self, folder: Path, file: str, damaging: Damaging | None = None) -> None:
        self.name = str(folder / file)
        self.file = file
        self.digest: str | None = None
        self._damaging = damaging
        self._given = False

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002 - all at once, which is never more than the limit
        """The encoded image the first time, then nothing.

        Raises:
            ImageError: it cannot be read or, where it is to be damaged, not decoded.
        """
        if self._given:
            return b""
        self._given = True
        data = read_encoded(self.name, ImageLimits().max_bytes)
        self.digest = hashlib.sha256(data).hexdigest()
        return data if self._damaging is None else _png(self._damaging(load_image(data)))


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file that could be classified, in hexadecimal; None for others."""
    try:
        return hashlib.sha256(read_encoded(path, ImageLimits().max_bytes)).hexdigest()
    except ImageError:
        return None


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(to_pixels(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
