"""From what a caller hands over as an image to its encoded bytes, reading no more than the limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Protocol

from ._errors import ImageError, ImageFormatError, ImageReadError, ImageTooLargeError, InvalidArgumentError, one_line


class BinaryFile(Protocol):
    """A file object opened in binary mode; it is read from where it stands and is not closed."""

    def read(self, size: int = ..., /) -> bytes | None: ...


def name_of(source: object) -> str | None:
    """How errors and verdicts call `source`: its path, the name of the file object, or None."""
    if isinstance(source, str):
        return source
    try:
        if isinstance(source, os.PathLike):
            return os.fsdecode(source)
        name = getattr(source, "filename", None) or getattr(source, "name", None)
    except Exception:
        return None  # the caller's own class; what is wrong with it is told when it is read
    return name if isinstance(name, str) and name else None


def read_encoded(source: Any, max_bytes: int) -> bytes:
    """The encoded image in `source`: a path, a bytes-like object or a binary file object.

    Raises:
        ImageReadError: the path is missing, is not a regular file, or cannot be read.
        ImageFormatError: there is not a single byte.
        ImageTooLargeError: there are more than `max_bytes`; no more than one byte beyond them is read.
        InvalidArgumentError: `source` is none of these.
    """
    if isinstance(source, (str, os.PathLike)):
        data = _read_path(source, max_bytes)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        if memoryview(source).nbytes > max_bytes:
            raise too_many_bytes(max_bytes)
        data = bytes(source)
    elif callable(getattr(source, "read", None)):
        data = _read_file(source, max_bytes)
    else:
        raise InvalidArgumentError(
            "an image must be a path, bytes, a binary file object, a PIL image or a uint8 array of shape "
            f"(height, width, 3), not {type(source).__name__}"
        )
    if not data:
        raise ImageFormatError("empty file")
    return data


def too_many_bytes(max_bytes: int) -> ImageTooLargeError:
    return ImageTooLargeError(f"more than {max_bytes:,} bytes, the limit set by max_bytes")


def _read_path(path: str | os.PathLike[Any], max_bytes: int) -> bytes:
    if isinstance(path, str) and path.startswith(("http://", "https://", "data:")):
        raise ImageReadError("an address, not a file: fetch it and pass the bytes")
    try:
        # Asked before it is opened as well: opening a pipe waits for its writer, opening some devices acts on them.
        _require_regular(Path(os.fsdecode(path)).stat().st_mode)
        with Path(os.fsdecode(path)).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            _require_regular(status.st_mode)
            if status.st_size > max_bytes:
                raise too_many_bytes(max_bytes)
            return _read_file(file, max_bytes)
    except FileNotFoundError:
        raise ImageReadError("no such file") from None
    except (OSError, ValueError) as error:
        # ValueError: a path with a null character in it
        raise ImageReadError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise ImageReadError("a folder, not an image file")
    if not stat.S_ISREG(mode):
        raise ImageReadError("a device, pipe or socket, not a regular file: read it and pass the bytes")


def _read_file(file: BinaryFile, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    left = max_bytes + 1
    try:
        while left > 0:
            chunk = file.read(left)
            if not chunk:
                break
            if not isinstance(chunk, bytes):
                raise InvalidArgumentError("the file object gives text: open it in binary mode, 'rb'")
            chunks.append(chunk)
            left -= len(chunk)
    except (ImageError, InvalidArgumentError):
        raise
    except Exception as error:
        # A file object is the caller's own code or a network stream: it may raise anything.
        raise ImageReadError(f"cannot be read: {one_line(str(error)) or type(error).__name__}") from None
    if left <= 0:
        raise too_many_bytes(max_bytes)
    return b"".join(chunks)
